"""The registry of layer kinds that become ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlferry.exporters.onnx.refusals import refuse
from mlferry.registry import Registry

__all__ = ["OPS", "Op", "op", "refuse"]

Op = Callable[..., Any]

# Options:
#   five_axes: whether a layer, or one with such parameters, gets its inputs with all of their five
#       axes in the classic mapping; others get them without a sequence of one step.
#   limits: what is refused, for the documentation.
#   random: the kind draws values, which differ from those of mlferry's own runtime.
OPS: Registry[Op] = Registry("ONNX export of a layer kind")
op = OPS.register
