"""Neural networks from Keras to Apple's Core ML, run and checked without a Mac."""

from __future__ import annotations

from mlferry import converters, limits, models, proto, utils
from mlferry.converters.convert import channels_first, convert, trace
from mlferry.converters.settings import (
    AvailableTarget as target,
    ColorLayout as colorlayout,
    ComputePrecision as precision,
    ComputeUnit,
)
from mlferry.converters.types import (
    ClassifierConfig,
    EnumeratedShapes,
    ImageType,
    RangeDim,
    Shape,
    TensorType,
)
from mlferry.custom import (
    CustomLayer,
    CustomLayerParams,
    CustomModel,
    register_custom_layer,
    register_custom_model,
)
from mlferry.errors import MlferryError
from mlferry.models.build import make_custom_model
from mlferry.models.compare import compare_models, first_difference
from mlferry.models.export import export_onnx
from mlferry.models.model import MLModel
from mlferry.models.quantization import quantize_weights, search_quantization
from mlferry.models.shapes import shapes
from mlferry.models.view import visualize_spec
from mlferry.version import VERSION

__all__ = [
    "ClassifierConfig",
    "ComputeUnit",
    "CustomLayer",
    "CustomLayerParams",
    "CustomModel",
    "EnumeratedShapes",
    "ImageType",
    "MLModel",
    "MlferryError",
    "RangeDim",
    "Shape",
    "TensorType",
    "channels_first",
    "colorlayout",
    "compare_models",
    "convert",
    "converters",
    "export_onnx",
    "first_difference",
    "limits",
    "make_custom_model",
    "models",
    "precision",
    "proto",
    "quantize_weights",
    "register_custom_layer",
    "register_custom_model",
    "search_quantization",
    "shapes",
    "target",
    "trace",
    "utils",
    "visualize_spec",
]

__version__ = VERSION
