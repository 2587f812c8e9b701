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
        "ClassifierConfig": "mlferry.converters.types:ClassifierConfig",
        "ComputeUnit": "mlferry.converters.settings:ComputeUnit",
        "CustomLayer": "mlferry.custom:CustomLayer",
        "CustomLayerParams": "mlferry.custom:CustomLayerParams",
        "CustomModel": "mlferry.custom:CustomModel",
        "EnumeratedShapes": "mlferry.converters.types:EnumeratedShapes",
        "ImageType": "mlferry.converters.types:ImageType",
        "MLModel": "mlferry.models.model:MLModel",
        "MlferryError": "mlferry.errors:MlferryError",
        "RangeDim": "mlferry.converters.types:RangeDim",
        "Shape": "mlferry.converters.types:Shape",
        "TensorType": "mlferry.converters.types:TensorType",
        "channels_first": "mlferry.converters.convert:channels_first",
        "check_precision": "mlferry.models.precision:check_precision",
        "colorlayout": "mlferry.converters.settings:ColorLayout",
        "compare_models": "mlferry.models.compare:compare_models",
        "convert": "mlferry.converters.convert:convert",
        "converters": "mlferry.converters",
        "examples": "mlferry.examples",
        "export_onnx": "mlferry.models.export:export_onnx",
        "first_difference": "mlferry.models.compare:first_difference",
        "limits": "mlferry.limits",
        "make_custom_model": "mlferry.models.build:make_custom_model",
        "models": "mlferry.models",
        "optimize": "mlferry.optimize",
        "precision": "mlferry.converters.settings:ComputePrecision",
        "proto": "mlferry.proto",
        "prune_weights": "mlferry.models.pruning:prune_weights",
        "quantize_weights": "mlferry.models.quantization:quantize_weights",
        "register_custom_layer": "mlferry.custom:register_custom_layer",
        "register_custom_model": "mlferry.custom:register_custom_model",
        "search_quantization": "mlferry.models.quantization:search_quantization",
        "shapes": "mlferry.models.shapes:shapes",
        "target": "mlferry.converters.settings:AvailableTarget",
        "to_program": "mlferry.models.programs:to_program",
        "trace": "mlferry.converters.convert:trace",
        "utils": "mlferry.utils",
        "verify": "mlferry.models.verify:verify",
        "visualize_spec": "mlferry.models.visualize:visualize_spec",
    },
)

__version__ = VERSION
