"""Source models to Core ML: each frontend reads a file or object into a `Graph`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlferry import lazy

if TYPE_CHECKING:
    from mlferry.converters import keras as keras, onnx as onnx, tensorflow as tensorflow
    from mlferry.converters.convert import convert as convert
    from mlferry.converters.types import (
        ClassifierConfig as ClassifierConfig,
        EnumeratedShapes as EnumeratedShapes,
        ImageType as ImageType,
        RangeDim as RangeDim,
        Shape as Shape,
        TensorType as TensorType,
    )

_TYPES = ("ClassifierConfig", "EnumeratedShapes", "ImageType", "RangeDim", "Shape", "TensorType")

__getattr__, __dir__ = lazy.names(__name__, {"mlferry.converters.types": _TYPES})
