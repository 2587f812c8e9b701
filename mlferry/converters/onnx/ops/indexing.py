"""Gathering and scattering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    emit,
    extent,
    ints,
    joined,
    known,
    positive,
    rank,
    scalar,
    shaped,
    vector,
)
from mlferry.converters.sizes import use
from mlferry.converters.slices import entry
from mlferry.converters.values import SOURCE, Blob, Constant
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
    _check(array, size)
    resolved = np.where(array < 0, array + size, array)
    return low.stored(Constant(f"{x.name}/mod_{size}", resolved))


def _check(array: NDArray[Any], size: int) -> None:
    """Raise a `ConversionError` where an index is out of bounds."""
    if array.size and (array.min() < -size or array.max() >= size):
        raise ConversionError(f"indices {np.min(array)}..{np.max(array)} of an axis of {size}")


@op("Gather", raw=True)
def gather(low: Lowering, node: Node, x: Any, indices: Any) -> Blob:
    """The rank is that of both together, less the axis."""
    x = low.stored(x) if isinstance(x, Constant) else x
    axis = positive(node.attrs.get("axis", 0), x.rank)
    if isinstance(indices, Constant) and x.known[axis] is not None and indices.array.size:
        size = x.known[axis] or 0
        _check(indices.array, size)
        if not indices.array.ndim and x.rank > 1:
            return entry(low, x, axis, int(indices.array))
        if np.min(indices.array) < 0:
            use(x, [axis])
        places = indices_of(low, indices, size)
    else:
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


def points(low: Lowering, indices: Any, limits: Sequence[int]) -> Blob:
    """Coordinates along the last axis, counted from the front.

    Raises:
        ConversionError: constant ones are out of bounds.
    """
    sizes = np.array(limits)
    if not isinstance(indices, Constant):
        negative = emit(low, "lessThan", indices, alpha=0.0)
        moved = emit(low, "multiplyBroadcastable", negative, low.constant(sizes))
        return emit(low, "addBroadcastable", indices, moved)
    array = indices.array.astype(np.int64)
    if array.size and ((array < -sizes) | (array >= sizes)).any():
        raise ConversionError(f"indices {np.min(array)}..{np.max(array)} into a shape of {limits}")
    return low.constant(np.where(array < 0, array + sizes, array))


@op("GatherND", raw=True)
def gather_nd(low: Lowering, node: Node, x: Any, indices: Any) -> Blob:
    """Batch axes become leading coordinates."""
    x = low.stored(x) if isinstance(x, Constant) else x
    batch = node.attrs.get("batch_dims", 0)
    shape = indices.array.shape if isinstance(indices, Constant) else known(indices)
    places = points(low, indices, known(x)[batch : batch + shape[-1]])
    if batch:
        leading = np.moveaxis(np.indices(shape[:-1])[:batch], 0, -1)
        fixed = low.constant(leading)
        places = low.layer("concatND", fixed, places, layout=SOURCE, axis=-1)
    made = low.layer("gatherND", x, places, layout=SOURCE)
    return shaped(low, made, (*shape[:-1], *known(x)[batch + shape[-1] :]))


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
    count = math.prod(shape)
    places = shaped(low, indices_of(low, indices, known(x)[axis]), (count, 1))
    columns = [low.constant(grid.reshape(count, 1)) for grid in np.indices(shape)]
    columns[axis] = places
    coordinates = joined(low, columns, 1)
    flat = shaped(low, updates, (count,))
    return low.layer("scatterND", x, coordinates, flat, layout=SOURCE, mode=mode)


@op("ScatterND", raw=True)
def scatter_nd(low: Lowering, node: Node, x: Any, indices: Any, updates: Any) -> Blob:
    x = low.stored(x) if isinstance(x, Constant) else x
    updates = low.stored(updates) if isinstance(updates, Constant) else updates
    depth = (indices.array.shape if isinstance(indices, Constant) else known(indices))[-1]
    places = points(low, indices, known(x)[:depth])
    mode = _MODES[node.attrs.get("reduction", "none")]
    return low.layer("scatterND", x, places, vector(updates), layout=SOURCE, mode=mode)


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
