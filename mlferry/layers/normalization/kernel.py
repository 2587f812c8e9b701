"""Normalization and softmax."""

from __future__ import annotations

import numpy as np

from mlferry.layers.kernels import Array, kernel
from mlferry.layers.normalization.definition import broadcast_shape
from mlferry.layers.params import Params


@kernel("batchnorm")
def batchnorm(p: Params, x: Array) -> Array:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel.

    With `computeMeanVar` the statistics are those of the input: over height, width and all that
    is in front of the channels, or over height and width alone with `instanceNormalization`.
    """
    if not p.computeMeanVar:
        scale, shift = p.once("scale and shift", lambda: _scale_and_shift(p))
        return _moved(x, scale, shift)
    others = () if p.instanceNormalization else tuple(range(x.ndim - 3))
    axes = (*others, -2, -1)
    mean = x.mean(axis=axes, keepdims=True)
    centered = x - mean
    variance = np.square(centered, out=centered).mean(axis=axes, keepdims=True)
    gamma, beta = (p.weight(name, (p.channels, 1, 1)) for name in ("gamma", "beta"))
    scale = gamma / np.sqrt(variance + np.float32(p.epsilon))
    return _moved(x, scale, beta - mean * scale)


def _moved(x: Array, scale: Array, shift: Array) -> Array:
    """x * scale + shift."""
    y = x * scale
    y += shift
    return y


def _scale_and_shift(p: Params) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (
        p.weight(name, (p.channels, 1, 1)) for name in ("gamma", "beta", "mean", "variance")
    )
    scale = gamma / np.sqrt(variance + np.float32(p.epsilon))
    return scale, beta - mean * scale


def softmax_along(x: Array, axis: int) -> Array:
    """exp(x) over its sum along an axis, without overflow."""
    y = x - x.max(axis=axis, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


@kernel("softmax")
def softmax(p: Params, x: Array) -> Array:
    """Along the channels (axis -3)."""
    return softmax_along(x, -3)


@kernel("softmaxND")
def softmax_nd(p: Params, x: Array) -> Array:
    return softmax_along(x, p.axis)


@kernel("layerNormalization")
def layer_normalization(p: Params, x: Array) -> Array:
    """Over the last axes, as many as `normalizedShape` has."""
    axes = tuple(range(-len(p.normalizedShape), 0))
    gamma, beta = (p.weight(name, p.normalizedShape) for name in ("gamma", "beta"))
    centered = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centered).mean(axis=axes, keepdims=True)
    centered /= np.sqrt(variance + np.float32(p.eps))
    centered *= gamma
    centered += beta
    return centered


@kernel("mvn")
def mvn(p: Params, x: Array) -> Array:
    """Zero mean, and unit variance if asked, over height and width, or channels as well."""
    axes = (-3, -2, -1) if p.acrossChannels else (-2, -1)
    y = x - x.mean(axis=axes, keepdims=True)
    if p.normalizeVariance:
        y = y / np.sqrt(np.square(y).mean(axis=axes, keepdims=True) + p.epsilon)
    return y


@kernel("l2normalize")
def l2normalize(p: Params, x: Array) -> Array:
    """x / sqrt(sum of squares over C, H and W + epsilon)."""
    norm = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(norm + p.epsilon)


@kernel("lrn")
def lrn(p: Params, x: Array) -> Array:
    """x / (k + alpha / n * sum of squares of n neighbouring channels) ** beta."""
    before = (p.localSize - 1) // 2
    after = p.localSize - 1 - before
    widths = [(0, 0)] * (x.ndim - 3) + [(before, after), (0, 0), (0, 0)]
    squares = np.pad(np.square(x), widths)
    channels = x.shape[-3]
    window = sum(squares[..., i : i + channels, :, :] for i in range(p.localSize))
    return x / np.power(p.k + p.alpha / p.localSize * window, p.beta)


@kernel("scale")
def scale(p: Params, x: Array) -> Array:
    """By [C] or [C, H, W] values, or one; then a bias of such a shape."""
    factor = p.weight("scale", broadcast_shape(p.shapeScale))
    return (
        _moved(x, factor, p.weight("bias", broadcast_shape(p.shapeBias)))
        if p.hasBias
        else x * factor
    )


@kernel("bias")
def bias(p: Params, x: Array) -> Array:
    return x + p.weight("bias", broadcast_shape(p.shape))
