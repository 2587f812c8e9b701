"""Gradients of normalization and softmax."""

from __future__ import annotations

import numpy as np

from mlferry.layers.gradients import BOTH, INPUTS, OUTPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.normalization.definition import broadcast_shape, softmax_axis
from mlferry.numerics.gradients import centered, reduced_to, through_softmax


def _per_channel(values: Array) -> Array:
    """Summed over all but the channels (axis -3)."""
    return reduced_to(values, (values.shape[-3], 1, 1)).reshape(-1)


@gradient(
    "batchnorm",
    keeps=lambda params: INPUTS if params.computeMeanVar else SHAPES,
    weights_keep=INPUTS,
)
def batchnorm(run: LayerRun, dy: Array) -> Array:
    """Stored statistics are constants; computed ones depend on the input."""
    params, x = run.params, run.inputs[0]
    gamma = params.weight("gamma", (params.channels, 1, 1))
    epsilon = np.float32(params.epsilon)
    run.weight("beta", lambda: _per_channel(dy))
    if not params.computeMeanVar:
        variance, mean = (
            params.weight(name, (params.channels, 1, 1)) for name in ("variance", "mean")
        )
        scale = 1 / np.sqrt(variance + epsilon)
        run.weight("gamma", lambda: _per_channel(dy * (x - mean) * scale))
        return dy * (gamma * scale)
    others = () if params.instanceNormalization else tuple(range(dy.ndim - 3))
    axes = (*others, -2, -1)
    moved = x - x.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt(np.square(moved).mean(axis=axes, keepdims=True) + epsilon)
    moved *= scale
    run.weight("gamma", lambda: _per_channel(dy * moved))
    return centered(dy * gamma, moved, scale, axes)


@gradient("softmax", "softmaxND", keeps=OUTPUTS)
def softmax(run: LayerRun, dy: Array) -> Array:
    return through_softmax(dy, run.outputs[0], softmax_axis(run.params))


@gradient("layerNormalization", keeps=INPUTS)
def layer_normalization(run: LayerRun, dy: Array) -> Array:
    params, x = run.params, run.inputs[0]
    shape = params.normalizedShape
    axes = tuple(range(-len(shape), 0))
    moved = x - x.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt(np.square(moved).mean(axis=axes, keepdims=True) + np.float32(params.eps))
    moved *= scale
    run.weight("beta", lambda: reduced_to(dy, shape))
    run.weight("gamma", lambda: reduced_to(dy * moved, shape))
    return centered(dy * params.weight("gamma", shape), moved, scale, axes)


@gradient("mvn", keeps=INPUTS)
def mvn(run: LayerRun, dy: Array) -> Array:
    params, x = run.params, run.inputs[0]
    axes = (-3, -2, -1) if params.acrossChannels else (-2, -1)
    if not params.normalizeVariance:
        return dy - dy.mean(axis=axes, keepdims=True)
    moved = x - x.mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt(np.square(moved).mean(axis=axes, keepdims=True) + params.epsilon)
    return centered(dy, moved * scale, scale, axes)


@gradient("l2normalize", keeps=INPUTS)
def l2normalize(run: LayerRun, dy: Array) -> Array:
    x, axes = run.inputs[0], (-3, -2, -1)
    total = np.square(x).sum(axis=axes, keepdims=True) + run.params.epsilon
    inner = (dy * x).sum(axis=axes, keepdims=True)
    return (dy - x * (inner / total)) / np.sqrt(total)


@gradient("lrn", keeps=BOTH)
def lrn(run: LayerRun, dy: Array) -> Array:
    params, x = run.params, run.inputs[0]
    size, channels = params.localSize, x.shape[-3]
    before = (size - 1) // 2
    after = size - 1 - before
    share = params.alpha / size

    def over_window(values: Array, front: int, behind: int) -> Array:
        widths = [(0, 0)] * (x.ndim - 3) + [(front, behind), (0, 0), (0, 0)]
        wide = np.pad(values, widths)
        total = wide[..., :channels, :, :].copy()
        for i in range(1, size):
            total += wide[..., i : i + channels, :, :]
        return total

    base = params.k + share * over_window(np.square(x), before, after)
    # each value is in the windows of its neighbours, mirrored
    inner = over_window(dy * run.outputs[0] / base, after, before)
    return dy * np.power(base, -params.beta) - 2 * share * params.beta * x * inner


@gradient("scale", keeps=SHAPES, weights_keep=INPUTS)
def scale(run: LayerRun, dy: Array) -> Array:
    params = run.params
    shape = broadcast_shape(params.shapeScale)
    run.weight("scale", lambda: reduced_to(dy * run.inputs[0], shape))
    run.weight("bias", lambda: reduced_to(dy, broadcast_shape(params.shapeBias)))
    return reduced_to(dy * params.weight("scale", shape), run.input_shapes[0])


@gradient("bias", keeps=SHAPES)
def bias(run: LayerRun, dy: Array) -> Array:
    run.weight("bias", lambda: reduced_to(dy, broadcast_shape(run.params.shape)))
    return reduced_to(dy, run.input_shapes[0])
