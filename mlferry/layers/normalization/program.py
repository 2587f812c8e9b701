"""Normalization and softmax."""

from __future__ import annotations

import numpy as np

from mlferry.layers.convolution.program import over_maps
from mlferry.layers.normalization.definition import broadcast_shape, softmax_axis
from mlferry.layers.params import Params
from mlferry.layers.program_weights import weight
from mlferry.layers.programs import as_program
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program("batchnorm")
def batchnorm(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, per channel.

    With `computeMeanVar` the statistics are those of the input: over height, width and all that
    is before the channels, or over height and width alone with `instanceNormalization`.
    """
    x, epsilon = builder.as_float(x), params.epsilon
    gamma, beta = (params.decoded(name, (params.channels,)) for name in ("gamma", "beta"))
    if params.computeMeanVar and params.instanceNormalization:
        arguments = {"gamma": gamma, "beta": beta, "epsilon": epsilon}
        return over_maps(builder, x, lambda maps: builder.op("instance_norm", x=maps, **arguments))
    if params.computeMeanVar:
        axes = [*range(x.rank - 3), x.rank - 2, x.rank - 1]
        y = _standardized(builder, x, axes, epsilon)
        y = builder.op("mul", x=y, y=gamma.reshape(-1, 1, 1))
        return builder.op("add", x=y, y=beta.reshape(-1, 1, 1))
    mean, variance = (params.decoded(name, (params.channels,)) for name in ("mean", "variance"))
    if x.rank == 4:
        return builder.op(
            "batch_norm", x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=epsilon
        )
    factor = gamma / np.sqrt(variance + np.float32(epsilon))
    scaled = builder.op("mul", x=x, y=factor.reshape(-1, 1, 1))
    return builder.op("add", x=scaled, y=(beta - mean * factor).reshape(-1, 1, 1))


def _standardized(
    builder: ProgramBuilder, x: Value, axes: list[int], epsilon: float | None
) -> Value:
    """Zero mean over some axes and, with an epsilon, unit variance."""
    mean = builder.op("reduce_mean", x=x, axes=axes, keep_dims=True)
    centered = builder.op("sub", x=x, y=mean)
    if epsilon is None:
        return centered
    square = builder.op("mul", x=centered, y=centered)
    variance = builder.op("reduce_mean", x=square, axes=axes, keep_dims=True)
    return builder.op("mul", x=centered, y=builder.op("rsqrt", x=variance, epsilon=epsilon))


@as_program("softmax", "softmaxND")
def softmax(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.op("softmax", x=builder.as_float(x), axis=softmax_axis(params))


@as_program("layerNormalization")
def layer_normalization(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    shape = params.normalizedShape
    gamma, beta = (params.decoded(name, shape) for name in ("gamma", "beta"))
    axes = list(range(-len(shape), 0))
    return builder.op(
        "layer_norm", x=builder.as_float(x), axes=axes, gamma=gamma, beta=beta, epsilon=params.eps
    )


@as_program("mvn")
def mvn(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Zero mean, and unit variance if asked, over height and width, or channels as well."""
    x = builder.as_float(x)
    axes = [-3, -2, -1] if params.acrossChannels else [-2, -1]
    if params.normalizeVariance:
        return builder.op("layer_norm", x=x, axes=axes, epsilon=params.epsilon)
    return _standardized(builder, x, axes, None)


@as_program("l2normalize")
def l2normalize(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.op("l2_norm", x=builder.as_float(x), epsilon=params.epsilon)


@as_program("lrn")
def lrn(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """x / (k + alpha / n * sum of squares of n neighbouring channels) ** beta."""
    x, size = builder.as_float(x), params.localSize
    if size % 2:
        arguments = {"size": size, "alpha": params.alpha, "beta": params.beta, "k": params.k}
        return over_maps(
            builder, x, lambda maps: builder.op("local_response_norm", x=maps, **arguments)
        )
    before = (size - 1) // 2  # the op centres odd windows only
    squares = builder.op("mul", x=x, y=x)
    padded = builder.op(
        "pad", x=squares, pad=[before, size - 1 - before, 0, 0, 0, 0], constant_val=0.0
    )
    window = builder.sliced(padded, -3, 0, 1 - size)
    for index in range(1, size):
        part = builder.sliced(padded, -3, index, index + 1 - size or None)
        window = builder.op("add", x=window, y=part)
    base = builder.affine(window, params.alpha / size, params.k)
    return builder.op("real_div", x=x, y=builder.op("pow", x=base, y=np.float32(params.beta)))


@as_program("scale")
def scale(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """By [C] or [C, H, W] values, or one; then a bias of such a shape."""
    by = weight(builder, params, "scale", broadcast_shape(params.shapeScale))
    y = builder.binary("mul", builder.as_float(x), by)
    if not params.hasBias:
        return y
    shift = weight(builder, params, "bias", broadcast_shape(params.shapeBias))
    return builder.binary("add", y, shift)


@as_program("bias")
def bias(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    shift = weight(builder, params, "bias", broadcast_shape(params.shape))
    return builder.binary("add", builder.as_float(x), shift)
