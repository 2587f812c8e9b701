"""Source models to Core ML: each frontend reads a file or object into a `Graph`."""

from __future__ import annotations

import importlib
from types import ModuleType

_FRONTENDS = ("keras", "onnx", "tensorflow")


def __getattr__(name: str) -> ModuleType:
    """A frontend, imported when it is first used: ``mlferry.converters.keras.convert``."""
    if name in _FRONTENDS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
