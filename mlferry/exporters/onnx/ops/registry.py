"""The registry of layer kinds that become ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlferry.registry import Registry

Op = Callable[..., Any]

# Options:
#   five_axes: the layer gets its inputs with all of their five axes in the classic mapping;
#       the others get them without the sequence where it has one step.
#   random: the kind draws values, which differ from those of mlferry's own runtime.
OPS: Registry[Op] = Registry("ONNX export of a layer kind")
op = OPS.register


class CannotExpressError(Exception):
    """ONNX cannot express a layer; the walker collects the reasons."""


def refuse(reason: str) -> CannotExpressError:
    """What an op raises where ONNX cannot say what the layer does."""
    return CannotExpressError(reason)
