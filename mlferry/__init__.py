"""Neural networks from Keras to Apple's Core ML, run and checked without a Mac."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlferry import lazy
from mlferry.version import VERSION

if TYPE_CHECKING:
    from mlferry import converters, examples, limits, models, optimize, proto, utils
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
    from mlferry.models.precision import check_precision
    from mlferry.models.programs import to_program
    from mlferry.models.pruning import prune_weights
    from mlferry.models.quantization import quantize_weights, search_quantization
    from mlferry.models.shapes import shapes
    from mlferry.models.verify import verify
    from mlferry.models.visualize import visualize_spec

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
    "check_precision",
    "colorlayout",
    "compare_models",
    "convert",
    "converters",
    "examples",
    "export_onnx",
    "first_difference",
    "limits",
    "make_custom_model",
    "models",
    "optimize",
    "precision",
    "proto",
    "prune_weights",
    "quantize_weights",
    "register_custom_layer",
    "register_custom_model",
    "search_quantization",
    "shapes",
    "target",
    "to_program",
    "trace",
    "utils",
    "verify",
    "visualize_spec",
]

__getattr__, __dir__ = lazy.names(
    __name__,
    {
        "mlferry.converters.convert": ("channels_first", "convert", "trace"),
        "mlferry.converters.settings": (
            *("AvailableTarget as target", "ColorLayout as colorlayout"),
            *("ComputePrecision as precision", "ComputeUnit"),
        ),
        "mlferry.converters.types": (
            *("ClassifierConfig", "EnumeratedShapes", "ImageType"),
            *("RangeDim", "Shape", "TensorType"),
        ),
        "mlferry.custom": (
            *("CustomLayer", "CustomLayerParams", "CustomModel"),
            *("register_custom_layer", "register_custom_model"),
        ),
        "mlferry.errors": ("MlferryError",),
        "mlferry.models.build": ("make_custom_model",),
        "mlferry.models.compare": ("compare_models", "first_difference"),
        "mlferry.models.export": ("export_onnx",),
        "mlferry.models.model": ("MLModel",),
        "mlferry.models.precision": ("check_precision",),
        "mlferry.models.programs": ("to_program",),
        "mlferry.models.pruning": ("prune_weights",),
        "mlferry.models.quantization": ("quantize_weights", "search_quantization"),
        "mlferry.models.shapes": ("shapes",),
        "mlferry.models.verify": ("verify",),
        "mlferry.models.visualize": ("visualize_spec",),
    },
)

__version__ = VERSION
