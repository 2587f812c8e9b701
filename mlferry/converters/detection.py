"""Boxes, for all frontends."""

from __future__ import annotations

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine
from mlferry.converters.values import Blob


def centred(context: Lowering, boxes: Blob) -> Blob:
    """Boxes [..., 4] of two opposite corners as centre and size, which Core ML suppresses."""
    first, second = context.split(boxes, (2, 2), -1)
    middle = affine(context, context.add(first, second), 0.5)
    size = context.emit("unary", context.subtract(first, second), type="ABS")
    return context.concat([middle, size], -1)
