"""Source models to Core ML: each frontend reads a file or object into a `Graph`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlferry.converters import keras as keras, onnx as onnx, tensorflow as tensorflow
    from mlferry.converters.convert import convert as convert

_FRONTENDS = ("keras", "onnx", "tensorflow")
_TYPES = ("ClassifierConfig", "EnumeratedShapes", "ImageType", "RangeDim", "Shape", "TensorType")


def __getattr__(name: str) -> Any:
    """A frontend, or a type, imported when it is first used."""
    if name in _FRONTENDS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _TYPES:
        return getattr(importlib.import_module(f"{__name__}.types"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
