"""Gathering, scattering, sorting and selecting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.numerics.boxes import remaining_boxes
from mlferry.programs.kernels import Array, Call, kernel

Index = tuple[slice | Array, ...]

# NumPy's own type hints do not say that `at` takes slices
_UPDATES: dict[str, Callable[[Array, Any, Array], None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _inside(indices: Array, extent: int) -> Array:
    """Indices counted from the start, for indices of which negative ones count from the end."""
    wide = indices.astype(np.int64)
    if wide.size and not (-extent <= wide.min() and wide.max() < extent):
        wrong = wide[(wide < -extent) | (wide >= extent)][0]
        raise PredictionError(f"index {wrong} into an axis of {extent}")
    return np.where(wide < 0, wide + extent, wide)


@kernel("gather", moves=True)
def gather(
    call: Call,
    x: Array,
    indices: Array,
    axis: int,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Array:
    axis %= x.ndim
    places = _inside(np.asarray(indices), x.shape[axis])
    if not batch_dims:
        return x.take(places, axis)
    outer = x.shape[:batch_dims]
    parts = [x[i].take(places[i], axis - batch_dims) for i in np.ndindex(*outer)]
    return np.stack(parts).reshape(*outer, *parts[0].shape)


def _points(shape: tuple[int, ...], indices: Array) -> tuple[Array, ...]:
    """The places that the last axis of indices names, as one array for each axis."""
    columns = np.moveaxis(np.asarray(indices), -1, 0)
    return tuple(_inside(column, n) for column, n in zip(columns, shape, strict=False))


@kernel("gather_nd", moves=True)
def gather_nd(
    call: Call, x: Array, indices: Array, batch_dims: int = 0, validate_indices: bool = False
) -> Array:
    if not batch_dims:
        return x[_points(x.shape, indices)]
    outer = x.shape[:batch_dims]
    inner = x.shape[batch_dims:]
    parts = [x[i][_points(inner, indices[i])] for i in np.ndindex(*outer)]
    return np.stack(parts).reshape(*outer, *parts[0].shape)


@kernel("gather_along_axis", moves=True)
def gather_along_axis(
    call: Call, x: Array, indices: Array, axis: int, validate_indices: bool = False
) -> Array:
    return np.take_along_axis(x, _inside(indices, x.shape[axis]), axis)


def _updated(data: Array, index: Index, updates: Array, mode: str) -> Array:
    y = data.copy()
    if mode == "update":
        y[index] = updates
    elif mode == "div":
        factors = np.ones(y.shape, np.float64)
        _UPDATES["mul"](factors, index, updates)
        y = (y / factors).astype(y.dtype)
    else:
        _UPDATES[mode](y, index, updates)
    return y


@kernel("scatter")
def scatter(
    call: Call,
    data: Array,
    indices: Array,
    updates: Array,
    axis: int,
    mode: str,
    validate_indices: bool = False,
) -> Array:
    axis %= data.ndim
    places = _inside(indices, data.shape[axis])
    return _updated(data, (*[slice(None)] * axis, places), updates, mode)


@kernel("scatter_along_axis")
def scatter_along_axis(
    call: Call,
    data: Array,
    indices: Array,
    updates: Array,
    axis: int,
    mode: str,
    validate_indices: bool = False,
) -> Array:
    axis %= data.ndim
    index = list(np.ogrid[tuple(map(slice, indices.shape))])
    index[axis] = _inside(indices, data.shape[axis])
    return _updated(data, tuple(index), updates, mode)


@kernel("scatter_nd")
def scatter_nd(
    call: Call,
    data: Array,
    indices: Array,
    updates: Array,
    mode: str,
    validate_indices: bool = False,
) -> Array:
    return _updated(data, _points(data.shape, indices), updates, mode)


def _order(x: Array, axis: int, ascending: bool) -> Array:
    """Equal values keep their order."""
    if ascending:
        return np.argsort(x, axis=axis, kind="stable")
    backwards = np.flip(x, axis)
    order = np.flip(np.argsort(backwards, axis=axis, kind="stable"), axis)
    return x.shape[axis] - 1 - order


@kernel("argsort")
def argsort(call: Call, x: Array, axis: int, ascending: bool) -> Array:
    return _order(x, axis, ascending)


@kernel("topk")
def topk(
    call: Call,
    x: Array,
    k: int,
    axis: int,
    ascending: bool,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Array, ...]:
    """The values are always sorted: without `sort` their order is undefined."""
    count = x.shape[axis] if k == -1 else k
    order = _order(x, axis, ascending).take(range(count), axis)
    values = np.take_along_axis(x, order, axis)
    return (values, order) if return_indices else (values,)


@kernel("one_hot")
def one_hot(
    call: Call,
    indices: Array,
    one_hot_vector_size: Array,
    axis: int,
    on_value: float,
    off_value: float,
) -> Array:
    """Indices may count from the end; any others give only `off_value`."""
    size = int(np.ravel(one_hot_vector_size)[0])
    limits.check("blob", 4 * size * indices.size, "one-hot vectors take bytes:")
    places = np.where(indices < 0, indices + size, indices)
    marked = places[..., None] == np.arange(size)
    return np.moveaxis(np.where(marked, on_value, off_value), -1, axis)


@kernel("non_zero")
def non_zero(call: Call, x: Array) -> Array:
    return np.argwhere(x)


@kernel("cumsum")
def cumsum(call: Call, x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    if reverse:
        x = np.flip(x, axis)
    y = np.cumsum(x, axis, dtype=x.dtype)
    if exclusive:
        y = y - x
    return np.flip(y, axis) if reverse else y


@kernel("non_maximum_suppression")
def non_maximum_suppression(
    call: Call,
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    max_boxes: int,
    per_class_suppression: bool,
    score_threshold: float = -np.inf,
) -> tuple[Array, ...]:
    """See `mlferry.numerics.boxes.remaining_boxes`."""
    n, _, classes = scores.shape
    limits.check("blob", 4 * n * max_boxes * (4 + classes), "boxes that stay take bytes:")
    return remaining_boxes(
        boxes,
        scores,
        iou_threshold,
        score_threshold,
        per_class=per_class_suppression,
        count=max_boxes,
    )


@kernel("non_maximum_suppression", since=7)
def suppression_of_columns(
    call: Call,
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    max_boxes: int,
    per_class_suppression: bool,
) -> tuple[Array, ...]:
    """The same with the boxes along the last axis, and without their number."""
    kept_boxes, kept_scores, indices, _ = non_maximum_suppression(
        call,
        boxes.swapaxes(1, 2),
        scores.swapaxes(1, 2),
        iou_threshold,
        max_boxes,
        per_class_suppression,
    )
    return kept_boxes.swapaxes(1, 2), kept_scores.swapaxes(1, 2), indices
