"""Boxes, for all frontends."""

from __future__ import annotations

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, emit
from mlferry.converters.values import SOURCE, Blob


def centred(context: Lowering, boxes: Blob) -> Blob:
    """Boxes [..., 4] of two opposite corners as centre and size, which Core ML suppresses."""
    first, second = context.outputs(
        2, "splitND", boxes, layout=SOURCE, axis=-1, numSplits=2, splitSizes=(2, 2)
    )
    middle = affine(context, emit(context, "addBroadcastable", first, second), 0.5)
    size = emit(context, "unary", emit(context, "subtractBroadcastable", first, second), type="ABS")
    return context.layer("concatND", middle, size, layout=SOURCE, axis=-1)
