"""Normalization and softmax."""

from __future__ import annotations

import numpy as np

from mlferry.layers.convolution.onnx import over_maps
from mlferry.layers.elementwise.onnx import affine
from mlferry.layers.exports import op
from mlferry.layers.normalization.definition import broadcast_shape
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import Emitter


@op("batchnorm")
def batchnorm(e: Emitter, p: Params, x: str) -> str:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel.

    With `computeMeanVar` the statistics are those of the input: over height, width and all that
    is in front of the channels, or over height and width alone with `instanceNormalization`.
    """
    if p.computeMeanVar and p.instanceNormalization:
        stored = [weight(e, p, name, (p.channels,)) for name in ("gamma", "beta")]
        return over_maps(
            e, x, lambda maps: e.node("InstanceNormalization", maps, *stored, epsilon=p.epsilon)
        )
    if p.computeMeanVar:
        rank = e.rank(x)
        y = _standardized(e, x, [*range(rank - 3), rank - 2, rank - 1], p.epsilon)
        gamma, beta = (weight(e, p, name, (p.channels, 1, 1)) for name in ("gamma", "beta"))
        return e.node("Add", e.node("Mul", y, gamma), beta)
    if e.rank(x) == 4:
        names = ("gamma", "beta", "mean", "variance")
        stored = [weight(e, p, name, (p.channels,)) for name in names]
        return e.node("BatchNormalization", x, *stored, epsilon=p.epsilon)
    factor, shift, mean, variance = (
        p.weight(name, (p.channels, 1, 1)) for name in ("gamma", "beta", "mean", "variance")
    )
    factor = factor / np.sqrt(variance + np.float32(p.epsilon))
    return e.node("Add", e.node("Mul", x, e.constant(factor)), e.constant(shift - mean * factor))


def _standardized(e: Emitter, x: str, axes: list[int], epsilon: float | None) -> str:
    """Zero mean over some axes and, with an epsilon, unit variance."""
    centered = e.node("Sub", x, e.node("ReduceMean", x, e.integers(axes)))
    e.shapes[centered] = e.shape(x)
    if epsilon is None:
        return centered
    variance = e.node("ReduceMean", e.node("Mul", centered, centered), e.integers(axes))
    y = e.node("Div", centered, e.node("Sqrt", affine(e, variance, 1, epsilon)))
    e.shapes[y] = e.shape(x)
    return y


@op("softmax")
def softmax(e: Emitter, p: Params, x: str) -> str:
    return e.node("Softmax", x, axis=e.rank(x) - 3)


@op("softmaxND")
def softmax_nd(e: Emitter, p: Params, x: str) -> str:
    return e.node("Softmax", x, axis=p.axis)


@op("layerNormalization")
def layer_normalization(e: Emitter, p: Params, x: str) -> str:
    stored = [weight(e, p, name, p.normalizedShape) for name in ("gamma", "beta")]
    axis = -len(p.normalizedShape)
    return e.node("LayerNormalization", x, *stored, axis=axis, epsilon=p.eps)


@op("mvn")
def mvn(e: Emitter, p: Params, x: str) -> str:
    """Zero mean, and unit variance if asked, over height and width, or channels as well."""
    axes = [-3, -2, -1] if p.acrossChannels else [-2, -1]
    return _standardized(e, x, axes, p.epsilon if p.normalizeVariance else None)


@op("l2normalize")
def l2normalize(e: Emitter, p: Params, x: str) -> str:
    total = e.node("ReduceSumSquare", x, e.integers([-3, -2, -1]))
    return e.node("Div", x, e.node("Sqrt", affine(e, total, 1, p.epsilon)))


@op("lrn")
def lrn(e: Emitter, p: Params, x: str) -> str:
    """x / (k + alpha / n * sum of squares of n neighbouring channels) ** beta."""
    if p.localSize % 2:
        return over_maps(
            e, x,
            lambda maps: e.node(
                "LRN", maps, size=p.localSize, alpha=p.alpha, beta=p.beta, bias=p.k
            ),
        )  # fmt: skip
    before = (p.localSize - 1) // 2  # onnxruntime's own takes odd windows only
    lead = [0] * (e.rank(x) - 3)
    pads = e.integers([*lead, before, 0, 0, *lead, p.localSize - 1 - before, 0, 0])
    squares = e.node("Pad", e.node("Mul", x, x), pads)
    window = ""
    for index in range(p.localSize):
        end = index + 1 - p.localSize or np.iinfo(np.int64).max
        part = e.sliced(squares, -3, index, end)
        window = e.node("Add", window, part) if window else part
    base = affine(e, window, p.alpha / p.localSize, p.k)
    return e.node("Div", x, e.node("Pow", base, e.number(p.beta)))


@op("scale")
def scale(e: Emitter, p: Params, x: str) -> str:
    """By [C] or [C, H, W] values, or one; then a bias of such a shape."""
    y = e.node("Mul", x, weight(e, p, "scale", broadcast_shape(p.shapeScale)))
    return e.node("Add", y, weight(e, p, "bias", broadcast_shape(p.shapeBias))) if p.hasBias else y


@op("bias")
def bias(e: Emitter, p: Params, x: str) -> str:
    return e.node("Add", x, weight(e, p, "bias", broadcast_shape(p.shape)))
