"""Ops that make values."""

from __future__ import annotations

import math

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, ints, vector
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import SOURCE, Blob, Constant, Operand, Result
from mlferry.errors import ConversionError


@op("Fill", raw=True)
def fill(context: Lowering, node: Node, shape: Operand, value: Operand) -> Blob:
    """A computed value in every entry of a known shape."""
    if isinstance(shape, Constant):
        extents = tuple(int(n) for n in shape.array.ravel())
        if not extents:
            return source(context, value)
        return context.layer(
            "broadcastToStatic", vector(source(context, value)), layout=SOURCE, targetShape=extents
        )
    if isinstance(value, Constant):
        filler = float(value.array.ravel()[0])
        return context.layer("fillDynamic", shape, layout=SOURCE, value=filler)
    return context.layer("broadcastToDynamic", vector(source(context, value)), shape, layout=SOURCE)


@op("Range", raw=True)
def range_of(context: Lowering, node: Node, start: Operand, limit: Operand, delta: Operand) -> Blob:
    """Core ML takes the end first; only the run tells how many values there are."""
    blobs = [vector(source(context, x)) for x in (limit, start, delta)]
    return context.layer("rangeDynamic", *blobs, layout=SOURCE)


@op("LinSpace", raw=True)
def lin_space(context: Lowering, node: Node, start: Operand, stop: Operand, count: Operand) -> Blob:
    """Adds fractions of the distance to the start."""
    if not isinstance(count, Constant):
        raise ConversionError("a computed number of values")
    number = int(count.array.ravel()[0])
    context.compute(4 * number)
    parts = Constant("", np.linspace(0, 1, number, dtype=np.float32))
    way = joint(context, "subtractBroadcastable", stop, start)
    moved = joint(context, "multiplyBroadcastable", way, parts)
    return joint(context, "addBroadcastable", moved, start)


@op("Empty", raw=True)
def empty(context: Lowering, node: Node, shape: Operand) -> Result:
    """Zeros: an array that nothing was written to."""
    node.attrs.get("init")
    if isinstance(shape, Constant):
        context.compute(4 * math.prod(ints(shape.array)))
        return np.zeros(shape.array.ravel(), np.float32)
    return context.layer("fillDynamic", shape, layout=SOURCE, value=0.0)


@op("BroadcastArgs", raw=True)
def broadcast_args(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """The shape to which two shapes broadcast: the other extent if one is 1."""
    shapes = [vector(source(context, x)) for x in (left, right)]
    longest = max(extent(x, 0) for x in shapes)
    first, second = (_in_front(context, x, longest - extent(x, 0)) for x in shapes)
    single = context.emit("equal", first, alpha=1.0)
    return context.where(single, second, first)


def _in_front(context: Lowering, x: Blob, count: int) -> Blob:
    """The same with this many ones in front."""
    if not count:
        return x
    return context.layer("constantPad", x, layout=SOURCE, padAmounts=(count, 0), value=1.0)


@op("InvertPermutation")
def invert_permutation(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.layer("argSort", x, layout=SOURCE, axis=0, descending=False)
