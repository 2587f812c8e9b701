"""Copies of arrays into another order of axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

_TILE = 64  # rows and columns whose lines of cache are all used before they are lost
_LEAST = 1 << 14  # elements from which tiles pay


def row_major(values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """An array as contiguous memory in the order of its axes, of a type; itself where it is so.

    As `numpy.ascontiguousarray`, which reads one element of a line of the cache at a time where
    the first axis is the one that lies contiguous in memory, as kernels of Keras and TensorFlow
    have it: those are copied by tiles.
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
    # the first axis is in its place: the others follow within each of its entries
    inner = by_column.reshape(columns, *copy.shape[:-1])
    back = [0, *(1 + order.index(axis) for axis in range(1, array.ndim))]
    return np.ascontiguousarray(inner.transpose(back))
