"""Ops that make values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, vector
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import SOURCE, Blob, Constant
from mlferry.errors import ConversionError


@op("Fill", raw=True)
def fill(low: Lowering, node: Node, shape: Any, value: Any) -> Blob:
    """A computed value goes to every place of a known shape."""
    if isinstance(shape, Constant):
        extents = tuple(int(n) for n in shape.array.ravel())
        if not extents:
            return source(low, value)
        return low.layer(
            "broadcastToStatic", vector(source(low, value)), layout=SOURCE, targetShape=extents
        )
    if isinstance(value, Constant):
        filler = float(value.array.ravel()[0])
        return low.layer("fillDynamic", shape, layout=SOURCE, value=filler)
    return low.layer("broadcastToDynamic", vector(source(low, value)), shape, layout=SOURCE)


@op("Range", raw=True)
def range_of(low: Lowering, node: Node, start: Any, limit: Any, delta: Any) -> Blob:
    """Core ML takes the end first; the number of values is known only at run time."""
    blobs = [vector(source(low, x)) for x in (limit, start, delta)]
    return low.layer("rangeDynamic", *blobs, layout=SOURCE)


@op("LinSpace", raw=True)
def lin_space(low: Lowering, node: Node, start: Any, stop: Any, count: Any) -> Blob:
    """From the start, by parts of the way to the stop."""
    if not isinstance(count, Constant):
        raise ConversionError("a computed number of values")
    number = int(count.array.ravel()[0])
    parts = Constant("", np.linspace(0, 1, number, dtype=np.float32))
    way = joint(low, "subtractBroadcastable", stop, start)
    moved = joint(low, "multiplyBroadcastable", way, parts)
    return joint(low, "addBroadcastable", moved, start)


@op("Empty", raw=True)
def empty(low: Lowering, node: Node, shape: Any) -> Any:
    """What nobody has written: zeros."""
    node.attrs.get("init")
    if isinstance(shape, Constant):
        return np.zeros(shape.array.ravel(), np.float32)
    return low.layer("fillDynamic", shape, layout=SOURCE, value=0.0)


@op("BroadcastArgs", raw=True)
def broadcast_args(low: Lowering, node: Node, left: Any, right: Any) -> Blob:
    """The shape that two shapes broadcast to: the other extent where one is 1."""
    shapes = [vector(source(low, x)) for x in (left, right)]
    longest = max(extent(x, 0) for x in shapes)
    first, second = (_in_front(low, x, longest - extent(x, 0)) for x in shapes)
    single = low.layer("equal", first, layout=SOURCE, alpha=1.0)
    return low.layer("whereBroadcastable", single, second, first, layout=SOURCE)


def _in_front(low: Lowering, x: Blob, count: int) -> Blob:
    """With so many ones in front."""
    if not count:
        return x
    return low.layer("constantPad", x, layout=SOURCE, padAmounts=(count, 0), value=1.0)


@op("InvertPermutation")
def invert_permutation(low: Lowering, node: Node, x: Blob) -> Blob:
    return low.layer("argSort", x, layout=SOURCE, axis=0, descending=False)
