"""Neural networks from Keras to Apple's Core ML, run and checked without a Mac."""

from __future__ import annotations

from mlferry.converters.convert import convert
from mlferry.converters.types import ClassifierConfig, ImageType, RangeDim, TensorType
from mlferry.custom import (
    CustomLayer,
    CustomLayerParams,
    CustomModel,
    register_custom_layer,
    register_custom_model,
)
from mlferry.errors import MlferryError
from mlferry.models.build import make_custom_model
from mlferry.models.model import MLModel
from mlferry.models.shapes import shapes
from mlferry.version import VERSION

__all__ = [
    "ClassifierConfig",
    "CustomLayer",
    "CustomLayerParams",
    "CustomModel",
    "ImageType",
    "MLModel",
    "MlferryError",
    "RangeDim",
    "TensorType",
    "convert",
    "make_custom_model",
    "register_custom_layer",
    "register_custom_model",
    "shapes",
]

__version__ = VERSION
