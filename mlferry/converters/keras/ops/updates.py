"""`keras.ops` that replace values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.functions import function, operands
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, known
from mlferry.converters.slices import sliced
from mlferry.converters.values import Argument, Blob
from mlferry.errors import ConversionError

_REDUCTIONS = {
    None: "SCATTER_UPDATE",
    "add": "SCATTER_ADD",
    "mul": "SCATTER_MUL",
    "max": "SCATTER_MAX",
    "min": "SCATTER_MIN",
}


@function("SliceUpdate")
def slice_update(
    context: Lowering,
    node: Node,
    inputs: Argument,
    start_indices: Sequence[Blob | int],
    updates: Argument,
) -> Blob:
    """Joins the parts before and after along each axis; starts are clipped to fit."""
    x, part = operands(context, inputs, updates)
    starts = start_indices if isinstance(start_indices, list | tuple) else [start_indices]
    if any(isinstance(start, Blob) for start in starts):
        raise ConversionError("start_indices that the model computes: constants can be converted")
    return _put(context, x, part, [int(n) for n in np.asarray(start_indices).ravel()], 0)


def _put(context: Lowering, x: Blob, part: Blob, starts: list[int], axis: int) -> Blob:
    while axis < x.rank and x.known[axis] == part.known[axis]:
        axis += 1
    if axis == x.rank:
        return part
    size, count = extent(x, axis), extent(part, axis)
    start = min(max(starts[axis], 0), size - count)
    bounds = [(0, start), (start, start + count), (start + count, size)]
    before, inner, behind = (
        sliced(context, x, [a], [b], [axis], None) if a < b else None for a, b in bounds
    )
    assert inner is not None
    output = _put(context, inner, part, starts, axis + 1)
    pieces = [piece for piece in (before, output, behind) if piece is not None]
    return context.layer("concatND", *pieces, axis=axis)


@function("ScatterUpdate")
def scatter_update(
    context: Lowering,
    node: Node,
    inputs: Argument,
    indices: Argument,
    updates: Argument,
    reduction: str | None = None,
) -> Blob:
    """Values at the places whose leading coordinates are the rows of `indices`."""
    if reduction not in _REDUCTIONS:
        raise ConversionError(f"reduction={reduction!r}: one of add, mul, max, min, or none")
    if not isinstance(indices, Blob):
        places = np.asarray(indices)
        shape = known(inputs) if isinstance(inputs, Blob) else np.shape(inputs)
        limits = shape[: places.shape[-1]]
        if (places < 0).any() or (places >= np.asarray(limits)).any():
            raise ConversionError(f"indices beyond the shape {tuple(limits)}")
    x, where, values = operands(context, inputs, indices, updates)
    return context.layer("scatterND", x, where, values, mode=_REDUCTIONS[reduction])
