"""Gathering and scattering."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import noted, numbered, size_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    affine,
    array_of,
    as_blob,
    extent,
    ints,
    is_integer,
    joined,
    known,
    positive,
    rank,
    scalar,
    shaped,
    truncated,
    vector,
)
from mlferry.converters.sizes import use
from mlferry.converters.slices import entry, sliced
from mlferry.converters.values import Blob, Constant, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

_MODES = {
    "none": "SCATTER_UPDATE",
    "add": "SCATTER_ADD",
    "mul": "SCATTER_MUL",
    "max": "SCATTER_MAX",
    "min": "SCATTER_MIN",
}


def indices_of(context: Lowering, x: Operand, size: int | Blob) -> Blob:
    """Indices counted from the front; constant ones are checked now.

    Raises:
        ConversionError: a constant index is out of bounds.
    """
    if isinstance(size, Blob):
        places = as_blob(context, x)
        negative = context.emit("lessThan", places, alpha=0.0)
        return context.add(places, context.multiply(negative, scalar(size)))
    if not isinstance(x, Constant):
        return from_front(context, x, size)
    array = x.array
    _check(array, size)
    resolved = np.where(array < 0, array + size, array)
    return context.stored(Constant(f"{x.name}/mod_{size}", resolved))


def from_front(context: Lowering, indices: Blob, size: int) -> Blob:
    """Computed indices counted from the front."""
    negative = context.emit("lessThan", indices, alpha=0.0)
    return context.add(indices, affine(context, negative, float(size)))


def _check(array: Array, size: int) -> None:
    """Raise a `ConversionError` if an index is out of bounds."""
    if array.size and (array.min() < -size or array.max() >= size):
        raise ConversionError(f"indices {np.min(array)}..{np.max(array)} of an axis of {size}")


@op("Gather", raw=True)
def gather(context: Lowering, node: Node, x: Operand, indices: Operand) -> Operand:
    """The rank of the result is the sum of both ranks minus 1."""
    x = as_blob(context, x)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    elements = context.elements.get(x.name) if x.rank == 1 else None
    if elements is not None and isinstance(indices, Constant) and indices.array.ndim < 2:
        _check(indices.array, len(elements))
        chosen = [elements[i] for i in indices.array.ravel().tolist()]
        places = context.constant(np.atleast_1d(indices.array) % len(elements))
        output = context.gather(x, places, 0)
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
    output = context.gather(x, vector(places), axis)
    if not places.is_scalar:
        return output
    return scalar(output) if x.rank == 1 else context.layer("squeeze", output, axes=(axis,))


@op("GatherElements", raw=True)
def gather_elements(context: Lowering, node: Node, x: Operand, indices: Operand) -> Blob:
    x = as_blob(context, x)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    places = indices_of(context, indices, extent(x, axis))
    shape = known(places)
    if any(a != b for i, (a, b) in enumerate(zip(shape, known(x), strict=True)) if i != axis):
        ends = [n if i != axis else None for i, n in enumerate(shape)]
        x = sliced(context, x, [0] * x.rank, ends, None, None)
    return context.layer("gatherAlongAxis", x, places, axis=axis)


def points(context: Lowering, indices: Operand, limits: Sequence[int]) -> Blob:
    """Coordinates along the last axis, counted from the front.

    Raises:
        ConversionError: a constant one is out of bounds.
    """
    sizes = np.array(limits)
    if not isinstance(indices, Constant):
        negative = context.emit("lessThan", indices, alpha=0.0)
        return context.add(indices, context.multiply(negative, context.constant(sizes)))
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
        places = context.concat([fixed, places], -1)
    output = context.layer("gatherND", x, places)
    return shaped(context, output, (*shape[:-1], *known(x)[batch + shape[-1] :]))


@op("Scatter", "ScatterElements", raw=True)
def scatter_elements(
    context: Lowering, node: Node, x: Operand, indices: Operand, updates: Operand
) -> Blob:
    """Indices become coordinates if they cover only a part of the data's other axes."""
    x = as_blob(context, x)
    updates = as_blob(context, updates)
    axis = positive(node.attrs.get("axis", 0), x.rank)
    mode = _MODES[node.attrs.get("reduction", "none")]
    shape = known(updates)
    covers = all(a == b for i, (a, b) in enumerate(zip(shape, known(x), strict=True)) if i != axis)
    if covers:
        places = indices_of(context, indices, known(x)[axis])
        return context.layer("scatterAlongAxis", x, places, updates, axis=axis, mode=mode)
    count = math.prod(shape)
    places = shaped(context, indices_of(context, indices, known(x)[axis]), (count, 1))
    columns = [context.constant(grid.reshape(count, 1)) for grid in np.indices(shape)]
    columns[axis] = places
    coordinates = joined(context, columns, 1)
    flat = shaped(context, updates, (count,))
    return context.layer("scatterND", x, coordinates, flat, mode=mode)


@op("ScatterND", raw=True)
def scatter_nd(
    context: Lowering, node: Node, x: Operand, indices: Operand, updates: Operand
) -> Blob:
    x = as_blob(context, x)
    updates = as_blob(context, updates)
    depth = (indices.array.shape if isinstance(indices, Constant) else known(indices))[-1]
    places = points(context, indices, known(x)[:depth])
    mode = _MODES[node.attrs.get("reduction", "none")]
    return context.layer("scatterND", x, places, vector(updates), mode=mode)


@op("TensorScatter")
def tensor_scatter(
    context: Lowering, node: Node, past: Blob, update: Blob, starts: Blob | None = None
) -> Blob:
    """New entries replace old ones, from a position on that differs for each sample."""
    axis = positive(node.attrs.get("axis", -2), past.rank)
    if axis != past.rank - 2:
        raise ConversionError(f"axis={axis} of {past.rank}: only the last but one can be converted")
    length, count = extent(past, axis), extent(update, axis)
    numbers = context.constant(np.arange(count)[None])
    places = numbers if starts is None else context.add(context.expand(starts, 1), numbers)
    if node.attrs.get("mode", "linear") == "circular":
        places = context.emit("modBroadcastable", places, context.constant([float(length)]))
    rows = context.constant(np.arange(length)[None, :, None])
    chosen = context.emit("equal", rows, context.expand(places, 1))  # [batch, length, count]
    inner = range(1, past.rank - 2)
    chosen = context.expand(chosen, *inner) if inner else chosen
    moved = context.matmul(chosen, update)
    written = context.reduce("reduceMax", chosen, (-1,))
    return context.where(written, moved, past)


@op("OneHot", raw=True)
def one_hot(
    context: Lowering, node: Node, indices: Operand, depth: Operand, values: Operand
) -> Blob:
    """The depth may be computed; indices may have fractions, which count for nothing."""
    indices = as_blob(context, indices)
    if not is_integer(node):
        indices = truncated(context, indices)
    off, on = (float(v) for v in array_of(node, 2, values).ravel())
    axis = positive(node.attrs.get("axis", -1), rank(indices) + 1)
    if not isinstance(depth, Constant):
        return _one_hot_of(context, indices, vector(depth), axis, off, on)
    size = ints(depth.array)[0]
    context.sizes.use(context.sizes.behind(depth))
    places = from_front(context, indices, size)
    output = context.layer(
        "oneHot",
        vector(places),
        oneHotVectorSize=size,
        axis=-1 if indices.is_scalar else axis,
        onValue=on,
        offValue=off,
    )
    return shaped(context, output, (size,)) if indices.is_scalar else output


def _one_hot_of(
    context: Lowering, indices: Blob, depth: Blob, axis: int, off: float, on: float
) -> Blob:
    """Compares the indices with the numbers up to a computed depth."""
    places = vector(indices_of(context, indices, depth))
    if not indices.is_scalar:
        places = context.expand(places, axis)
    numbers = numbered(context, depth)
    after = rank(indices) - axis
    if after:
        numbers = context.expand(numbers, *range(1, after + 1))
    same = context.emit("equal", places, numbers)
    return affine(context, same, on - off, off)


@op("NonZero")
def non_zero(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML lists a position in each row, ONNX in each column."""
    output = context.layer("whereNonZero", vector(x))
    return context.transpose(output, (1, 0))


@op("Compress", constants=(1,))
def compress(context: Lowering, node: Node, x: Blob, condition: Array) -> Blob:
    axis = node.attrs.get("axis")
    if axis is None:
        x, axis = shaped(context, x, (int(np.prod(known(x))),)), 0
    places = np.flatnonzero(condition)
    if not places.size:
        raise ConversionError("a value without elements")
    return context.gather(x, context.constant(places), positive(axis, x.rank))
