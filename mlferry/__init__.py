"""Neural networks from Keras to Apple's Core ML, run and checked without a Mac."""

from __future__ import annotations

from mlferry.converters.convert import convert
from mlferry.converters.types import ClassifierConfig, ImageType, RangeDim, TensorType
from mlferry.custom import CustomLayer, CustomLayerParams, register_custom_layer
from mlferry.errors import MlferryError
from mlferry.models.model import MLModel

__all__ = [
    "ClassifierConfig",
    "CustomLayer",
    "CustomLayerParams",
    "ImageType",
    "MLModel",
    "MlferryError",
    "RangeDim",
    "TensorType",
    "convert",
    "register_custom_layer",
]
