"""Gather, scatter, sorting, and other layers that use indices.

Indices are floats; negative ones count from the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, integer, kernel
from mlferry.layers.params import Params
from mlferry.numerics.shapes import axis_of

Index = NDArray[np.int64]


def _wrapped(indices: Array, extent: int) -> Index:
    """Indices into an axis, as positive integers."""
    whole = indices.astype(np.int64)
    if whole.size and (np.min(whole) < -extent or np.max(whole) >= extent):
        raise PredictionError(
            f"indices go from {np.min(whole)} to {np.max(whole)}; the axis has {extent} entries"
        )
    return np.where(whole < 0, whole + extent, whole)


def _set_at(target: Array, index: Sequence[NDArray[Any]], updates: Array) -> None:
    target[index] = updates


# A place that is named several times gets all of its updates in turn; SCATTER_UPDATE keeps
# the last.
_SCATTER: dict[str, Callable[[Array, Any, Array], None]] = {
    "SCATTER_UPDATE": _set_at,
    "SCATTER_ADD": np.add.at,
    "SCATTER_SUB": np.subtract.at,
    "SCATTER_MUL": np.multiply.at,
    "SCATTER_DIV": np.true_divide.at,
    "SCATTER_MAX": np.maximum.at,
    "SCATTER_MIN": np.minimum.at,
}


@kernel("gather")
def gather(params: Params, x: Array, indices: Array) -> Array:
    axis = axis_of(params.axis, x.ndim)
    try:
        return np.take(x, indices.astype(np.int64), axis=axis)
    except IndexError:
        return np.take(x, _wrapped(indices, x.shape[axis]), axis=axis)  # says which


@kernel("scatter")
def scatter(params: Params, x: Array, indices: Array, updates: Array) -> Array:
    """The inverse of `gather`: slices of the first input are updated."""
    axis = axis_of(params.axis, x.ndim)
    y = x.copy()
    index = (slice(None),) * axis + (_wrapped(indices, x.shape[axis]),)
    _SCATTER[params.mode](y, index, updates)
    return y


def _points(x: Array, indices: Array) -> tuple[Index, ...]:
    depth = indices.shape[-1]
    return tuple(_wrapped(indices[..., axis], x.shape[axis]) for axis in range(depth))


@kernel("gatherND")
def gather_nd(params: Params, x: Array, indices: Array) -> Array:
    """The last axis of the indices is a position in the first axes of the data."""
    return np.atleast_1d(x[_points(x, indices)])


@kernel("scatterND")
def scatter_nd(params: Params, x: Array, indices: Array, updates: Array) -> Array:
    y = x.copy()
    index = _points(x, indices)
    _SCATTER[params.mode](y, index, updates.reshape(y[index].shape))
    return y


def _along(params: Params, x: Array, indices: Array) -> tuple[Index, ...]:
    axis = axis_of(params.axis, x.ndim)
    places: list[Index] = [*np.indices(indices.shape, sparse=True)]
    places[axis] = _wrapped(indices, x.shape[axis])
    return tuple(places)


@kernel("gatherAlongAxis")
def gather_along_axis(params: Params, x: Array, indices: Array) -> Array:
    return x[_along(params, x, indices)]


@kernel("scatterAlongAxis")
def scatter_along_axis(params: Params, x: Array, indices: Array, updates: Array) -> Array:
    y = x.copy()
    _SCATTER[params.mode](y, _along(params, x, indices), updates)
    return y


@kernel("whereNonZero")
def where_non_zero(params: Params, x: Array) -> Index:
    """The positions of values other than 0, one per row, in row-major order."""
    return np.argwhere(x != 0)


@kernel("whereBroadcastable")
def where_broadcastable(params: Params, condition: Array, left: Array, right: Array) -> Array:
    return np.where(condition != 0, left, right)


@kernel("oneHot")
def one_hot(params: Params, x: Array, size: Array | None = None) -> Array:
    """`onValue` at the index, `offValue` elsewhere, and everywhere for an index outside."""
    count = params.oneHotVectorSize if size is None else integer(size, "size")
    limits.check_blob((*x.shape, count))
    axis = axis_of(params.axis, x.ndim + 1)
    places = np.arange(count).reshape(-1, *(1,) * (x.ndim - axis))
    hit = np.expand_dims(x.astype(np.int64), axis) == places
    return np.where(hit, np.float32(params.onValue), np.float32(params.offValue))


def _order(x: Array, axis: int, descending: bool) -> Index:
    """The order of a stable sort."""
    return np.argsort(-x if descending else x, axis=axis, kind="stable")


def _first(x: Array, axis: int, count: int, descending: bool) -> Index:
    """The first entries of `_order`; without a full sort if they are few.

    A value and its place make one integer, which sorts as both: no two are equal.
    """
    if count * _FEW > x.shape[axis]:
        return np.take(_order(x, axis, descending), np.arange(count), axis=axis)
    lines = np.moveaxis(x, axis, -1)
    values = np.ascontiguousarray(-lines if descending else lines, np.float32) + np.float32(0)
    bits = values.view(np.int32).astype(np.int64)
    np.bitwise_xor(bits, 0x7FFFFFFF, out=bits, where=bits < 0)  # floats as ordered integers
    bits[np.isnan(values)] = 0x7FFFFFFF
    bits <<= 32
    bits |= np.arange(lines.shape[-1])
    result = np.sort(np.partition(bits, count - 1, axis=-1)[..., :count], axis=-1)
    return np.moveaxis(result & 0xFFFFFFFF, -1, axis)


_FEW = 8  # above this part of an axis, a full sort takes about as long


@kernel("topK")
def top_k(params: Params, x: Array, count: Array | None = None) -> tuple[Array, Index]:
    """The largest values, largest first, and their indices; or the smallest."""
    axis = axis_of(params.axis, x.ndim)
    k = params.K if count is None else integer(count, "K")
    if not 1 <= k <= x.shape[axis]:
        raise PredictionError(f"the top {k} of an axis of {x.shape[axis]}")
    order = _first(x, axis, k, not params.useBottomK)
    return np.take_along_axis(x, order, axis), order


@kernel("argSort")
def arg_sort(params: Params, x: Array) -> Index:
    return _order(x, axis_of(params.axis, x.ndim), params.descending)


_EXTREMES: dict[str, Callable[..., Any]] = {"argMax": np.argmax, "argMin": np.argmin}


@kernel(*_EXTREMES)
def arg_extreme(params: Params, x: Array) -> Index:
    """The first index of equal values."""
    axis = axis_of(params.axis, x.ndim)
    return np.atleast_1d(_EXTREMES[params.kind](x, axis=axis, keepdims=not params.removeDim))


@kernel("cumSum")
def cum_sum(params: Params, x: Array, axis: Array | None = None) -> Array:
    """`excludeFinalSum` shifts the sums by one; `reverse` sums from the end."""
    along = axis_of(params.axis if axis is None else integer(axis, "axis"), x.ndim)
    y = np.flip(x, along) if params.reverse else x
    total = np.cumsum(y, axis=along, dtype=y.dtype)
    if params.excludeFinalSum:
        zeros = np.zeros_like(np.take(total, [0], axis=along))
        remaining = np.take(total, np.arange(x.shape[along] - 1), axis=along)
        total = np.concatenate([zeros, remaining], axis=along)
    return np.flip(total, along) if params.reverse else total


@kernel("reverse")
def reverse(params: Params, x: Array) -> Array:
    return np.flip(x, tuple(axis for axis, flag in enumerate(params.reverseDim) if flag))


@kernel("reverseSeq")
def reverse_seq(params: Params, x: Array, lengths: Array) -> Array:
    """Reverse as much of each sequence in the batch as its length says."""
    batch, sequence = axis_of(params.batchAxis, x.ndim), axis_of(params.sequenceAxis, x.ndim)
    axes_first = np.moveaxis(x, (batch, sequence), (0, 1))
    y = axes_first.copy()
    for index, length in enumerate(lengths.astype(int)):
        if not 0 <= length <= axes_first.shape[1]:
            raise PredictionError(f"length {length} of sequences of {axes_first.shape[1]}")
        y[index, :length] = axes_first[index, :length][::-1]
    return np.moveaxis(y, (0, 1), (batch, sequence))


@kernel("matrixBandPart")
def matrix_band_part(params: Params, x: Array) -> Array:
    """Keep this many diagonals below and above the main one; a negative number keeps all."""
    distance = np.subtract.outer(np.arange(x.shape[-2]), np.arange(x.shape[-1]))
    keep = (params.numLower < 0) | (distance <= params.numLower)
    keep = keep & ((params.numUpper < 0) | (-distance <= params.numUpper))
    return np.where(keep, x, 0)


@kernel("lowerTriangular")
def lower_triangular(params: Params, x: Array) -> Array:
    """Zero above diagonal `k`."""
    return np.tril(x, params.k)


@kernel("upperTriangular")
def upper_triangular(params: Params, x: Array) -> Array:
    """Zero below diagonal `k`."""
    return np.triu(x, params.k)
