"""Normalization and softmax."""

from __future__ import annotations

import numpy as np

from mlferry.layers.kernels import Array, kernel
from mlferry.layers.normalization.definition import broadcast_shape, scale_and_shift, softmax_axis
from mlferry.layers.params import Params
from mlferry.numerics.functions import softmax_along
from mlferry.numerics.normalization import layer_normalized


@kernel("batchnorm")
def batchnorm(params: Params, x: Array) -> Array:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel.

    With `computeMeanVar` the statistics are those of the input: over height, width and all that
    is before the channels, or over height and width alone with `instanceNormalization`.
    """
    if not params.computeMeanVar:
        scale, shift = params.once("scale and shift", lambda: scale_and_shift(params))
        return _moved(x, scale, shift)
    others = () if params.instanceNormalization else tuple(range(x.ndim - 3))
    axes = (*others, -2, -1)
    mean = x.mean(axis=axes, keepdims=True)
    centered = x - mean
    variance = np.square(centered, out=centered).mean(axis=axes, keepdims=True)
    gamma, beta = (params.weight(name, (params.channels, 1, 1)) for name in ("gamma", "beta"))
    scale = gamma / np.sqrt(variance + np.float32(params.epsilon))
    return _moved(x, scale, beta - mean * scale)


def _moved(x: Array, scale: Array, shift: Array) -> Array:
    """x * scale + shift."""
    y = x * scale
    y += shift
    return y


@kernel("softmax", "softmaxND")
def softmax(params: Params, x: Array) -> Array:
    return softmax_along(x, softmax_axis(params))


@kernel("layerNormalization")
def layer_normalization(params: Params, x: Array) -> Array:
    """Over the last axes, as many as `normalizedShape` has."""
    gamma, beta = (params.weight(name, params.normalizedShape) for name in ("gamma", "beta"))
    return layer_normalized(x, gamma, beta, params.eps)


@kernel("mvn")
def mvn(params: Params, x: Array) -> Array:
    """Zero mean, and unit variance if asked, over height and width, or channels as well."""
    axes = (-3, -2, -1) if params.acrossChannels else (-2, -1)
    y = x - x.mean(axis=axes, keepdims=True)
    if params.normalizeVariance:
        y = y / np.sqrt(np.square(y).mean(axis=axes, keepdims=True) + params.epsilon)
    return y


@kernel("l2normalize")
def l2normalize(params: Params, x: Array) -> Array:
    """x / sqrt(sum of squares over C, H and W + epsilon)."""
    norm = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(norm + params.epsilon)


@kernel("lrn")
def lrn(params: Params, x: Array) -> Array:
    """x / (k + alpha / n * sum of squares of n neighbouring channels) ** beta."""
    before = (params.localSize - 1) // 2
    after = params.localSize - 1 - before
    widths = [(0, 0)] * (x.ndim - 3) + [(before, after), (0, 0), (0, 0)]
    squares = np.pad(np.square(x), widths)
    channels = x.shape[-3]
    window = sum(squares[..., i : i + channels, :, :] for i in range(params.localSize))
    return x / np.power(params.k + params.alpha / params.localSize * window, params.beta)


@kernel("scale")
def scale(params: Params, x: Array) -> Array:
    """By [C] or [C, H, W] values, or one; then a bias of such a shape."""
    factor = params.weight("scale", broadcast_shape(params.shapeScale))
    if not params.hasBias:
        return x * factor
    return _moved(x, factor, params.weight("bias", broadcast_shape(params.shapeBias)))


@kernel("bias")
def bias(params: Params, x: Array) -> Array:
    return x + params.weight("bias", broadcast_shape(params.shape))
