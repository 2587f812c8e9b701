"""Normalization over channels, axes and neighbours."""

from __future__ import annotations

import numpy as np

from mlferry.numerics.normalization import layer_normalized, standardized
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import axes_of, vector


def _along(values: Array, x: Array) -> Array:
    """One value for each channel (axis 1)."""
    return np.asarray(values).reshape(-1, *[1] * (x.ndim - 2))


def _affine(y: Array, gamma: Array | None, beta: Array | None) -> Array:
    if gamma is not None:
        y = y * gamma
    return y if beta is None else y + beta


@kernel("batch_norm")
def batch_norm(
    call: Call,
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None,
    beta: Array | None,
    epsilon: float,
) -> Array:
    scale = 1 / np.sqrt(variance + np.float32(epsilon))
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    return x * _along(scale, x) + _along(shift, x)


@kernel("instance_norm")
def instance_norm(
    call: Call, x: Array, gamma: Array | None, beta: Array | None, epsilon: float
) -> Array:
    """Normalizes over all axes after the channels."""
    scaled = standardized(x, tuple(range(2, x.ndim)), epsilon)
    factors = [None if values is None else _along(values, x) for values in (gamma, beta)]
    return _affine(scaled, *factors)


@kernel("layer_norm")
def layer_norm(
    call: Call,
    x: Array,
    axes: tuple[int, ...] | None,
    gamma: Array | None,
    beta: Array | None,
    epsilon: float,
) -> Array:
    over = tuple(range(x.ndim)) if axes is None else axes_of(vector(axes), x.ndim)
    shape = [x.shape[axis] if axis in over else 1 for axis in range(x.ndim)]
    if over and over == tuple(range(over[0], x.ndim)):
        ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
        gamma, beta = ones if gamma is None else gamma, zeros if beta is None else beta
        last = x.shape[over[0] :]
        return layer_normalized(x, gamma.reshape(last), beta.reshape(last), epsilon)
    factors = [None if values is None else values.reshape(shape) for values in (gamma, beta)]
    return _affine(standardized(x, over, epsilon), *factors)


@kernel("l2_norm")
def l2_norm(call: Call, x: Array, epsilon: float) -> Array:
    """Normalizes over the last three axes."""
    total = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(total + np.float32(epsilon))


@kernel("local_response_norm")
def local_response_norm(
    call: Call, x: Array, size: int, alpha: float, beta: float, k: float
) -> Array:
    """Divides by the squares of neighbouring channels: axis 1, or axis 0 of three axes."""
    axis = 1 if x.ndim > 3 else x.ndim - 3
    squares = np.moveaxis(np.square(x), axis, 0)
    before, far = (size - 1) // 2, len(squares) - 1
    total = np.zeros_like(squares)
    for offset in range(max(-before, -far), min(size - before - 1, far) + 1):
        source = slice(max(0, offset), len(squares) + min(0, offset))
        target = slice(max(0, -offset), len(squares) + min(0, -offset))
        total[target] += squares[source]
    total = np.moveaxis(total, 0, axis)
    return x / np.power(np.float32(k) + np.float32(alpha / size) * total, np.float32(beta))
