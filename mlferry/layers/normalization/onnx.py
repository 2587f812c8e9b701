"""Normalization and softmax."""

from __future__ import annotations

import numpy as np

from mlferry.layers.convolution.onnx import over_maps
from mlferry.layers.exports import op
from mlferry.layers.normalization.definition import broadcast_shape, scale_and_shift
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import Emitter


@op("batchnorm")
def batchnorm(emitter: Emitter, params: Params, x: str) -> str:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel.

    With `computeMeanVar` the statistics are those of the input: over height, width and all that
    is before the channels, or over height and width alone with `instanceNormalization`.
    """
    if params.computeMeanVar and params.instanceNormalization:
        weights = [weight(emitter, params, name, (params.channels,)) for name in ("gamma", "beta")]
        return over_maps(
            emitter,
            x,
            lambda maps: emitter.node(
                "InstanceNormalization", maps, *weights, epsilon=params.epsilon
            ),
        )
    if params.computeMeanVar:
        rank = emitter.rank(x)
        y = _standardized(emitter, x, [*range(rank - 3), rank - 2, rank - 1], params.epsilon)
        gamma, beta = (
            weight(emitter, params, name, (params.channels, 1, 1)) for name in ("gamma", "beta")
        )
        return emitter.node("Add", emitter.node("Mul", y, gamma), beta)
    if emitter.rank(x) == 4:
        names = ("gamma", "beta", "mean", "variance")
        weights = [weight(emitter, params, name, (params.channels,)) for name in names]
        return emitter.node("BatchNormalization", x, *weights, epsilon=params.epsilon)
    scale, shift = map(emitter.constant, scale_and_shift(params))
    return emitter.node("Add", emitter.node("Mul", x, scale), shift)


def _standardized(emitter: Emitter, x: str, axes: list[int], epsilon: float | None) -> str:
    """Zero mean over some axes and, with an epsilon, unit variance."""
    centered = emitter.node("Sub", x, emitter.node("ReduceMean", x, emitter.integers(axes)))
    emitter.shapes[centered] = emitter.shape(x)
    if epsilon is None:
        return centered
    variance = emitter.node(
        "ReduceMean", emitter.node("Mul", centered, centered), emitter.integers(axes)
    )
    y = emitter.node("Div", centered, emitter.node("Sqrt", emitter.affine(variance, 1, epsilon)))
    emitter.shapes[y] = emitter.shape(x)
    return y


@op("softmax")
def softmax(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("Softmax", x, axis=emitter.rank(x) - 3)


@op("softmaxND")
def softmax_nd(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("Softmax", x, axis=params.axis)


@op("layerNormalization")
def layer_normalization(emitter: Emitter, params: Params, x: str) -> str:
    weights = [weight(emitter, params, name, params.normalizedShape) for name in ("gamma", "beta")]
    axis = -len(params.normalizedShape)
    return emitter.node("LayerNormalization", x, *weights, axis=axis, epsilon=params.eps)


@op("mvn")
def mvn(emitter: Emitter, params: Params, x: str) -> str:
    """Zero mean, and unit variance if asked, over height and width, or channels as well."""
    axes = [-3, -2, -1] if params.acrossChannels else [-2, -1]
    return _standardized(emitter, x, axes, params.epsilon if params.normalizeVariance else None)


@op("l2normalize")
def l2normalize(emitter: Emitter, params: Params, x: str) -> str:
    total = emitter.node("ReduceSumSquare", x, emitter.integers([-3, -2, -1]))
    return emitter.node("Div", x, emitter.node("Sqrt", emitter.affine(total, 1, params.epsilon)))


@op("lrn")
def lrn(emitter: Emitter, params: Params, x: str) -> str:
    """x / (k + alpha / n * sum of squares of n neighbouring channels) ** beta."""
    if params.localSize % 2:
        return over_maps(
            emitter,
            x,
            lambda maps: emitter.node(
                "LRN",
                maps,
                size=params.localSize,
                alpha=params.alpha,
                beta=params.beta,
                bias=params.k,
            ),
        )
    before = (params.localSize - 1) // 2  # onnxruntime's own takes odd windows only
    lead = [0] * (emitter.rank(x) - 3)
    pads = emitter.integers([*lead, before, 0, 0, *lead, params.localSize - 1 - before, 0, 0])
    squares = emitter.node("Pad", emitter.node("Mul", x, x), pads)
    window = ""
    for index in range(params.localSize):
        end = index + 1 - params.localSize or np.iinfo(np.int64).max
        part = emitter.sliced(squares, -3, index, end)
        window = emitter.node("Add", window, part) if window else part
    base = emitter.affine(window, params.alpha / params.localSize, params.k)
    return emitter.node("Div", x, emitter.node("Pow", base, emitter.number(params.beta)))


@op("scale")
def scale(emitter: Emitter, params: Params, x: str) -> str:
    """By [C] or [C, H, W] values, or one; then a bias of such a shape."""
    y = emitter.node("Mul", x, weight(emitter, params, "scale", broadcast_shape(params.shapeScale)))
    if not params.hasBias:
        return y
    shift = weight(emitter, params, "bias", broadcast_shape(params.shapeBias))
    return emitter.node("Add", y, shift)


@op("bias")
def bias(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("Add", x, weight(emitter, params, "bias", broadcast_shape(params.shape)))
