"""Gathering and scattering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import noted, numbered, size_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    affine,
    array_of,
    as_blob,
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
from mlferry.converters.values import SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError

_MODES = {
    "none": "SCATTER_UPDATE",
    "add": "SCATTER_ADD",
    "mul": "SCATTER_MUL",
    "max": "SCATTER_MAX",
    "min": "SCATTER_MIN",
}


def indices_of(context: Lowering, x: Operand, size: int | Blob) -> Blob:
    """Indices counted from the front; constant ones are resolved and checked now.

    Raises:
        ConversionError: a constant index is out of bounds.
    """
    if isinstance(size, Blob):
        places = as_blob(context, x)
        negative = emit(context, "lessThan", places, alpha=0.0)
        moved = emit(context, "multiplyBroadcastable", negative, scalar(size))
        return emit(context, "addBroadcastable", places, moved)
    if not isinstance(x, Constant):
        negative = emit(context, "lessThan", x, alpha=0.0)
        moved = emit(context, "activation", negative, linear={"alpha": float(size)})
        return emit(context, "addBroadcastable", x, moved)
    array = x.array
    _check(array, size)
    resolved = np.where(array < 0, array + size, array)
    return context.stored(Constant(f"{x.name}/mod_{size}", resolved))


def _check(array: NDArray[Any], size: int) -> None:
    """Raise a `ConversionError` where an index is out of bounds."""
    if array.size and (array.min() < -size or array.max() >= size):
        raise ConversionError(f"indices {np.min(array)}..{np.max(array)} of an axis of {size}")


@op("Gather", raw=True)
def gather(context: Lowering, node: Node, x: Operand, indices: Operand) -> Operand:
    """The rank is that of both together, less the axis."""
    x = as_blob(context, x)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    told = context.elements.get(x.name) if x.rank == 1 else None
    if told is not None and isinstance(indices, Constant) and indices.array.ndim < 2:
        _check(indices.array, len(told))
        chosen = [told[i] for i in indices.array.ravel().tolist()]
        places = context.constant(np.atleast_1d(indices.array) % len(told))
        output = context.layer("gather", x, places, layout=SOURCE, axis=0)
        return noted(context, scalar(output) if not indices.array.ndim else output, chosen)
    if isinstance(indices, Constant) and x.known[axis] is not None and indices.array.size:
        size = x.known[axis] or 0
        _check(indices.array, size)
        if not indices.array.ndim and x.rank > 1:
            return entry(context, x, axis, int(indices.array))
        if np.min(indices.array) < 0:
            use(x, [axis])
        places = indices_of(context, indices, size)
    elif x.known[axis] is None:
        places = indices_of(context, indices, size_of(context, x, axis))
    else:
        places = indices_of(context, indices, extent(x, axis))
    output = context.layer("gather", x, vector(places), layout=SOURCE, axis=axis)
    if not places.is_scalar:
        return output
    return (
        scalar(output)
        if x.rank == 1
        else context.layer("squeeze", output, layout=SOURCE, axes=(axis,))
    )


@op("GatherElements", raw=True)
def gather_elements(context: Lowering, node: Node, x: Operand, indices: Operand) -> Blob:
    x = as_blob(context, x)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    places = indices_of(context, indices, extent(x, axis))
    shape = known(places)
    if any(a != b for i, (a, b) in enumerate(zip(shape, known(x), strict=True)) if i != axis):
        cut = [slice(0, n) if i != axis else slice(None) for i, n in enumerate(shape)]
        begins = [c.start or 0 for c in cut]
        ends = [n if i != axis else known(x)[i] for i, n in enumerate(shape)]
        x = context.layer(
            "sliceStatic",
            x,
            layout=SOURCE,
            beginIds=begins,
            endIds=ends,
            beginMasks=[False] * x.rank,
            endMasks=[False] * x.rank,
            strides=[1] * x.rank,
        )
    return context.layer("gatherAlongAxis", x, places, layout=SOURCE, axis=axis)


def points(context: Lowering, indices: Operand, limits: Sequence[int]) -> Blob:
    """Coordinates along the last axis, counted from the front.

    Raises:
        ConversionError: constant ones are out of bounds.
    """
    sizes = np.array(limits)
    if not isinstance(indices, Constant):
        negative = emit(context, "lessThan", indices, alpha=0.0)
        moved = emit(context, "multiplyBroadcastable", negative, context.constant(sizes))
        return emit(context, "addBroadcastable", indices, moved)
    array = indices.array.astype(np.int64)
    if array.size and ((array < -sizes) | (array >= sizes)).any():
        raise ConversionError(f"indices {np.min(array)}..{np.max(array)} into a shape of {limits}")
    return context.constant(np.where(array < 0, array + sizes, array))


@op("GatherND", raw=True)
def gather_nd(context: Lowering, node: Node, x: Operand, indices: Operand) -> Blob:
    """Batch axes become leading coordinates."""
    x = as_blob(context, x)
    batch = node.attrs.get("batch_dims", 0)
    shape = indices.array.shape if isinstance(indices, Constant) else known(indices)
    places = points(context, indices, known(x)[batch : batch + shape[-1]])
    if batch:
        leading = np.moveaxis(np.indices(shape[:-1])[:batch], 0, -1)
        fixed = context.constant(leading)
        places = context.layer("concatND", fixed, places, layout=SOURCE, axis=-1)
    output = context.layer("gatherND", x, places, layout=SOURCE)
    return shaped(context, output, (*shape[:-1], *known(x)[batch + shape[-1] :]))


@op("Scatter", "ScatterElements", raw=True)
def scatter_elements(
    context: Lowering, node: Node, x: Operand, indices: Operand, updates: Operand
) -> Blob:
    """Where indices cover fewer places than the data off the axis, they are made coordinates."""
    x = as_blob(context, x)
    updates = as_blob(context, updates)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    mode = _MODES[node.attrs.get("reduction", "none")]
    shape = known(updates)
    covers = all(a == b for i, (a, b) in enumerate(zip(shape, known(x), strict=True)) if i != axis)
    if covers:
        places = indices_of(context, indices, known(x)[axis])
        return context.layer(
            "scatterAlongAxis", x, places, updates, layout=SOURCE, axis=axis, mode=mode
        )
    count = math.prod(shape)
    places = shaped(context, indices_of(context, indices, known(x)[axis]), (count, 1))
    columns = [context.constant(grid.reshape(count, 1)) for grid in np.indices(shape)]
    columns[axis] = places
    coordinates = joined(context, columns, 1)
    flat = shaped(context, updates, (count,))
    return context.layer("scatterND", x, coordinates, flat, layout=SOURCE, mode=mode)


@op("ScatterND", raw=True)
def scatter_nd(
    context: Lowering, node: Node, x: Operand, indices: Operand, updates: Operand
) -> Blob:
    x = as_blob(context, x)
    updates = as_blob(context, updates)
    depth = (indices.array.shape if isinstance(indices, Constant) else known(indices))[-1]
    places = points(context, indices, known(x)[:depth])
    mode = _MODES[node.attrs.get("reduction", "none")]
    return context.layer("scatterND", x, places, vector(updates), layout=SOURCE, mode=mode)


@op("TensorScatter")
def tensor_scatter(
    context: Lowering, node: Node, past: Blob, update: Blob, starts: Blob | None = None
) -> Blob:
    """New entries in the place of old ones from a place on that each sample has its own."""
    axis = positive(node.attrs.get("axis", -2), past.rank)
    if axis != past.rank - 2:
        raise ConversionError(f"axis={axis} of {past.rank}: the last but one can be converted")
    length, count = extent(past, axis), extent(update, axis)
    numbers = context.constant(np.arange(count)[None])
    places = (
        numbers
        if starts is None
        else emit(context, "addBroadcastable", context.expand(starts, 1), numbers)
    )
    if node.attrs.get("mode", "linear") == "circular":
        places = emit(context, "modBroadcastable", places, context.constant([float(length)]))
    rows = context.constant(np.arange(length)[None, :, None])
    chosen = emit(context, "equal", rows, context.expand(places, 1))  # [batch, length, count]
    inner = range(1, past.rank - 2)
    chosen = context.expand(chosen, *inner) if inner else chosen
    moved = context.layer("batchedMatmul", chosen, update, layout=SOURCE)
    written = context.layer("reduceMax", chosen, layout=SOURCE, axes=(-1,), keepDims=True)
    return emit(context, "whereBroadcastable", written, moved, past)


@op("OneHot", raw=True)
def one_hot(
    context: Lowering, node: Node, indices: Operand, depth: Operand, values: Operand
) -> Blob:
    """The depth may be computed."""
    indices = as_blob(context, indices)
    off, on = (float(v) for v in array_of(node, 2, values).ravel())
    axis = positive(node.attrs.get("axis", -1), rank(indices) + 1)
    if not isinstance(depth, Constant):
        return _one_hot_of(context, indices, vector(depth), axis, off, on)
    size = ints(depth.array)[0]
    context.sizes.use(context.sizes.behind(depth))
    negative = emit(context, "lessThan", indices, alpha=0.0)
    moved = emit(context, "activation", negative, linear={"alpha": float(size)})
    places = emit(context, "addBroadcastable", indices, moved)
    if indices.is_scalar:
        output = context.layer(
            "oneHot",
            vector(places),
            layout=SOURCE,
            oneHotVectorSize=size,
            axis=-1,
            onValue=on,
            offValue=off,
        )
        return shaped(context, output, (size,))
    return context.layer(
        "oneHot", places, layout=SOURCE, oneHotVectorSize=size, axis=axis, onValue=on, offValue=off
    )


def _one_hot_of(
    context: Lowering, indices: Blob, depth: Blob, axis: int, off: float, on: float
) -> Blob:
    """Indices beside the numbers up to a computed depth."""
    places = vector(indices_of(context, indices, depth))
    if not indices.is_scalar:
        places = context.expand(places, axis)
    numbers = numbered(context, depth)
    after = rank(indices) - axis
    if after:
        numbers = context.expand(numbers, *range(1, after + 1))
    same = emit(context, "equal", places, numbers)
    return affine(context, same, on - off, off)


@op("NonZero")
def non_zero(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML lists one place a row, ONNX one a column."""
    output = context.layer("whereNonZero", vector(x), layout=SOURCE)
    return context.layer("transpose", output, layout=SOURCE, axes=(1, 0))


@op("Compress", constants=(1,))
def compress(context: Lowering, node: Node, x: Blob, condition: NDArray[Any]) -> Blob:
    axis = node.attrs.get("axis")
    if axis is None:
        x, axis = shaped(context, x, (int(np.prod(known(x))),)), 0
    places = np.flatnonzero(condition)
    if not places.size:
        raise ConversionError("a value without elements")
    return context.layer(
        "gather", x, context.constant(places), layout=SOURCE, axis=positive(axis, x.rank)
    )
