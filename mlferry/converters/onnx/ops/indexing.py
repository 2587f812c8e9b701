"""Gathering and scattering."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    array_of,
    emit,
    extent,
    ints,
    known,
    positive,
    rank,
    scalar,
    shaped,
    vector,
)
from mlferry.errors import ConversionError

_MODES = {"none": "SCATTER_UPDATE", "add": "SCATTER_ADD", "mul": "SCATTER_MUL",
          "max": "SCATTER_MAX", "min": "SCATTER_MIN"}  # fmt: skip


def indices_of(low: Lowering, x: Any, size: int) -> Blob:
    """Indices counted from the front; constant ones are resolved and checked now.

    Raises:
        ConversionError: a constant index is out of bounds.
    """
    if not isinstance(x, Constant):
        negative = emit(low, "lessThan", x, alpha=0.0)
        moved = emit(low, "activation", negative, linear={"alpha": float(size)})
        return emit(low, "addBroadcastable", x, moved)
    array = x.array
    if array.size and (array.min() < -size or array.max() >= size):
        raise ConversionError(f"indices {array.min()}..{array.max()} of an axis of {size}")
    resolved = np.where(array < 0, array + size, array)
    return low.stored(Constant(f"{x.name}/mod_{size}", resolved))


@op("Gather", raw=True)
def gather(low: Lowering, node: Node, x: Any, indices: Any) -> Blob:
    """The rank is that of both together, less the axis."""
    x = low.stored(x) if isinstance(x, Constant) else x
    axis = positive(node.attrs.get("axis", 0), x.rank)
    places = indices_of(low, indices, extent(x, axis))
    made = low.layer("gather", x, vector(places), layout=SOURCE, axis=axis)
    if not places.is_scalar:
        return made
    return scalar(made) if x.rank == 1 else low.layer("squeeze", made, layout=SOURCE, axes=(axis,))


@op("GatherElements", raw=True)
def gather_elements(low: Lowering, node: Node, x: Any, indices: Any) -> Blob:
    x = low.stored(x) if isinstance(x, Constant) else x
    axis = positive(node.attrs.get("axis", 0), x.rank)
    places = indices_of(low, indices, extent(x, axis))
    shape = known(places)
    if any(a != b for i, (a, b) in enumerate(zip(shape, known(x), strict=True)) if i != axis):
        cut = [slice(0, n) if i != axis else slice(None) for i, n in enumerate(shape)]
        begins = [c.start or 0 for c in cut]
        ends = [n if i != axis else known(x)[i] for i, n in enumerate(shape)]
        x = low.layer(
            "sliceStatic", x, layout=SOURCE, beginIds=begins, endIds=ends,
            beginMasks=[False] * x.rank, endMasks=[False] * x.rank, strides=[1] * x.rank,
        )  # fmt: skip
    return low.layer("gatherAlongAxis", x, places, layout=SOURCE, axis=axis)


@op("GatherND", raw=True)
def gather_nd(low: Lowering, node: Node, x: Any, indices: Any) -> Blob:
    """Batch axes become leading coordinates of constant indices."""
    x = low.stored(x) if isinstance(x, Constant) else x
    batch = node.attrs.get("batch_dims", 0)
    array = array_of(node, 1, indices).astype(np.int64)
    limits = np.array(known(x)[batch : batch + array.shape[-1]])
    array = np.where(array < 0, array + limits, array)
    if batch:
        leading = np.indices(array.shape[:-1])[:batch]
        array = np.concatenate([np.moveaxis(leading, 0, -1), array], axis=-1)
    made = low.layer("gatherND", x, low.constant(array), layout=SOURCE)
    return shaped(low, made, (*array.shape[:-1], *known(x)[array.shape[-1] :]))


@op("Scatter", "ScatterElements", raw=True)
def scatter_elements(low: Lowering, node: Node, x: Any, indices: Any, updates: Any) -> Blob:
    """Where indices cover fewer places than the data off the axis, they are made coordinates."""
    x = low.stored(x) if isinstance(x, Constant) else x
    updates = low.stored(updates) if isinstance(updates, Constant) else updates
    axis = positive(node.attrs.get("axis", 0), x.rank)
    mode = _MODES[node.attrs.get("reduction", "none")]
    shape = known(updates)
    covers = all(a == b for i, (a, b) in enumerate(zip(shape, known(x), strict=True)) if i != axis)
    if covers:
        places = indices_of(low, indices, known(x)[axis])
        return low.layer(
            "scatterAlongAxis", x, places, updates, layout=SOURCE, axis=axis, mode=mode
        )
    array = array_of(node, 1, indices).astype(np.int64)
    array = np.where(array < 0, array + known(x)[axis], array)
    grid: list[Any] = list(np.indices(array.shape))
    grid[axis] = array
    coordinates = low.constant(np.stack(grid, axis=-1).reshape(-1, x.rank))
    flat = shaped(low, updates, (int(array.size),))
    return low.layer("scatterND", x, coordinates, flat, layout=SOURCE, mode=mode)


@op("ScatterND", raw=True)
def scatter_nd(low: Lowering, node: Node, x: Any, indices: Any, updates: Any) -> Blob:
    x = low.stored(x) if isinstance(x, Constant) else x
    updates = low.stored(updates) if isinstance(updates, Constant) else updates
    array = array_of(node, 1, indices).astype(np.int64)
    limits = np.array(known(x)[: array.shape[-1]])
    array = np.where(array < 0, array + limits, array)
    mode = _MODES[node.attrs.get("reduction", "none")]
    return low.layer("scatterND", x, low.constant(array), vector(updates), layout=SOURCE, mode=mode)


@op("OneHot", constants=(1, 2))
def one_hot(low: Lowering, node: Node, indices: Blob, depth: Any, values: Any) -> Blob:
    size = ints(depth)[0]
    off, on = (float(v) for v in np.asarray(values).ravel())
    axis = positive(node.attrs.get("axis", -1), rank(indices) + 1)
    negative = emit(low, "lessThan", indices, alpha=0.0)
    moved = emit(low, "activation", negative, linear={"alpha": float(size)})
    places = emit(low, "addBroadcastable", indices, moved)
    if indices.is_scalar:
        made = low.layer("oneHot", vector(places), layout=SOURCE, oneHotVectorSize=size, axis=-1,
                         onValue=on, offValue=off)  # fmt: skip
        return shaped(low, made, (size,))
    return low.layer(
        "oneHot", places, layout=SOURCE, oneHotVectorSize=size, axis=axis, onValue=on, offValue=off
    )


@op("NonZero")
def non_zero(low: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML lists one place a row, ONNX one a column."""
    made = low.layer("whereNonZero", vector(x), layout=SOURCE)
    return low.layer("transpose", made, layout=SOURCE, axes=(1, 0))


@op("Compress", constants=(1,))
def compress(low: Lowering, node: Node, x: Blob, condition: Any) -> Blob:
    axis = node.attrs.get("axis")
    if axis is None:
        x, axis = shaped(low, x, (int(np.prod(known(x))),)), 0
    places = np.flatnonzero(condition)
    if not places.size:
        raise ConversionError("a value without elements")
    return low.layer("gather", x, low.constant(places), layout=SOURCE, axis=positive(axis, x.rank))
