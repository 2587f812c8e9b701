"""Ops that make values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import vector
from mlferry.converters.tensorflow.ops.registry import joint, op, source
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
