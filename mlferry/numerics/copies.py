"""Copies of arrays into another order of axes, or of memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mlferry.numerics.shapes import Array

_TILE = 64  # rows and columns whose cache lines are all used before they are evicted
_LEAST = 1 << 14  # elements from which tiles pay off
_COLUMNS = 1 << 20  # elements of a matrix up to which its order in memory matters to products


def row_major(values: ArrayLike, dtype: DTypeLike) -> Array:
    """A contiguous array of this type, in the order of its axes; itself if it is that already.

    `numpy.ascontiguousarray` does the same, but reads one element of a cache line at a time if the
    first axis is the contiguous one, as in kernels of Keras and TensorFlow. Those are copied in
    tiles.
    """
    array = np.asarray(values)
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    if array.ndim < 2 or array.size < _LEAST or not order or order[-1] != 0:
        return np.asarray(array, dtype, order="C")
    copy = array.transpose(order)
    if not copy.flags.c_contiguous:
        return np.asarray(array, dtype, order="C")
    columns = copy.shape[-1]
    rows = copy.reshape(-1, columns)
    by_column = np.empty((columns, len(rows)), dtype)
    for row in range(0, len(rows), _TILE):
        for column in range(0, columns, _TILE):
            part = rows[row : row + _TILE, column : column + _TILE]
            by_column[column : column + _TILE, row : row + _TILE] = part.T
    # the first axis is in place: copy the others within each of its entries
    inner = by_column.reshape(columns, *copy.shape[:-1])
    back = [0, *(1 + order.index(axis) for axis in range(1, array.ndim))]
    return np.ascontiguousarray(inner.transpose(back))


def by_columns(matrix: Array) -> Array:
    """The matrix in column-major order, or as it is if it is large.

    Products ``x @ matrix.T`` of a few rows are up to twice as fast with it.
    """
    return np.asfortranarray(matrix) if matrix.size <= _COLUMNS else matrix
