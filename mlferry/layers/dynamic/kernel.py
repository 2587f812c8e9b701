"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.layers.dynamic.definition import steps
from mlferry.layers.kernels import Array, integers, kernel, number
from mlferry.layers.params import Params
from mlferry.layers.reshaping.definition import fit


def extents(shape: Array) -> tuple[int, ...]:
    """A shape that a blob holds.

    Raises:
        PredictionError: the blob is not a vector, or holds what is not an extent.
    """
    if shape.ndim != 1:
        raise PredictionError(f"a shape comes as a vector, not as {shape.shape}")
    result = integers(shape)
    if any(extent < 0 for extent in result):
        raise PredictionError(f"no shape: {result}")
    limits.check_blob(result)
    return result


@kernel("copy")
def copy(params: Params, x: Array) -> Array:
    return x.copy()


@kernel("getShape")
def get_shape(params: Params, x: Array) -> Array:
    return np.array(x.shape, np.float32)


def target(params: Params, field: str, given: Array | None = None) -> tuple[int, ...]:
    """The shape that the kind's name says: that of an input, a stored one, or one of an input."""
    if given is None:
        return tuple(getattr(params, field))
    return given.shape if params.kind.endswith("Like") else extents(given)


@kernel("fillLike", "fillStatic", "fillDynamic")
def fill(params: Params, *given: Array) -> Array:
    return np.full(target(params, "targetShape", *given), params.value, np.float32)


@kernel("broadcastToLike", "broadcastToStatic", "broadcastToDynamic")
def broadcast_to(params: Params, x: Array, *given: Array) -> Array:
    return np.broadcast_to(x, target(params, "targetShape", *given))


@kernel("reshapeLike")
def reshape_like(params: Params, x: Array, like: Array) -> Array:
    return x.reshape(like.shape)


@kernel("reshapeDynamic")
def reshape_dynamic(params: Params, x: Array, shape: Array) -> Array:
    """One extent of the shape may be -1; it is inferred."""
    if shape.ndim != 1:
        raise PredictionError(f"a shape comes as a vector, not as {shape.shape}")
    return x.reshape([extent or 0 for extent in fit(x.shape, integers(shape))])


def _range(start: float, end: float, step: float) -> Array:
    count = steps(start, end, step)
    limits.check_blob((count,))
    return np.float32(start) + np.float32(step) * np.arange(count, dtype=np.float32)


@kernel("rangeStatic")
def range_static(params: Params, *unread: Array) -> Array:
    return _range(params.startValue, params.endValue, params.stepSizeValue)


@kernel("rangeDynamic")
def range_dynamic(
    params: Params, end: Array, start: Array | None = None, step: Array | None = None
) -> Array:
    """Parameters replace missing inputs."""
    return _range(
        params.startValue if start is None else number(start, "start"),
        number(end, "end"),
        params.stepSizeValue if step is None else number(step, "step"),
    )
