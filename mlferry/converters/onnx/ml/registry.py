"""The registry of converters of `ai.onnx.ml` ops, and of the ordinary ops that move features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlferry.registry import Registry

if TYPE_CHECKING:
    from mlferry.converters.onnx.ml.values import Held

Converter = Callable[..., "Held | tuple[Held, ...] | None"]

DOMAIN = "ai.onnx.ml"
OPS: Registry[Converter] = Registry("ai.onnx.ml op")
MOVES: Registry[Converter] = Registry("op that moves features")
op = OPS.register
move = MOVES.register
