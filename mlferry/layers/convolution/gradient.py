"""Gradients of convolution, transposed convolution and pooling."""

from __future__ import annotations

import math

import numpy as np

from mlferry.layers.convolution.definition import edges_of, pooling_divisor, pooling_size
from mlferry.layers.convolution.kernel import cuts_of, stored_weights_of
from mlferry.layers.gradients import BOTH, INPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.params import Params
from mlferry.numerics.convolution import convolve
from mlferry.numerics.gradients import (
    convolved_inputs,
    convolved_weights,
    cut_into,
    first_of,
    pooled_maximum,
    pooled_sum,
)


# Stored weights are available anyway; weights that are an input have to be kept.
@gradient(
    "convolution",
    keeps=lambda params: SHAPES if params.has("weights") else INPUTS,
    weights_keep=INPUTS,
)
def convolution(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    """Of the input, and of weights and bias, stored or as inputs.

    The gradient of a convolution is a transposed one, and the other way round.
    """
    params, shape = run.params, run.input_shapes[0]
    steps = (params.stride, params.dilationFactor)
    behind = dy.reshape(-1, *dy.shape[-3:])
    as_input = len(run.input_shapes) > 1
    weights = run.inputs[1] if as_input else stored_weights_of(params)
    x = None if run.inputs[0] is None else run.inputs[0].reshape(-1, *shape[-3:])
    if params.isDeconvolution:
        wide = _placed(params, behind, shape)
        options = (*steps, ((0, 0), (0, 0)), params.nGroups)

        def of_weights() -> Array:
            assert x is not None  # kept, as its weights are trained
            return convolved_weights(x, wide, params.kernelSize, *options)

        run.weight("weights", of_weights)
        dx = convolve(wide, weights, *options) if run.wanted[0] else None
        dw = None
    else:
        edges = edges_of(params, shape)

        def of_weights() -> Array:
            assert x is not None  # kept, as its weights are trained
            return convolved_weights(behind, x, params.kernelSize, *steps, edges, params.nGroups)

        run.weight("weights", of_weights)
        dw = of_weights() if as_input and run.wanted[1] else None
        dx = None
        if run.wanted[0]:
            dx = convolved_inputs(behind, weights, *steps, edges, shape[-2:], params.nGroups)
    run.weight("bias", lambda: behind.sum(axis=(0, 2, 3)))
    db = None
    if len(run.input_shapes) > 2:
        db = behind.sum(axis=(0, 2, 3)).reshape(run.input_shapes[2])
    gradients = (None if dx is None else dx.reshape(shape), dw, db)
    return gradients[: len(run.input_shapes)]


def _placed(params: Params, dy: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of the full result of a transposed convolution, before the cut."""
    cuts, full, _ = cuts_of(params, shape)
    return cut_into(dy, full, cuts)


@gradient("pooling", keeps=lambda params: SHAPES if params.type == "AVERAGE" else BOTH)
def pooling(run: LayerRun, dy: Array) -> Array:
    """A maximum passes its gradient to the first of equal values."""
    params, shape = run.params, run.input_shapes[0]
    if params.globalPooling:
        return _global_pooling(run, dy)
    out, edges = pooling_size(params, shape[-2:])
    window = (params.kernelSize, params.stride, edges)
    if params.type == "MAX":
        return pooled_maximum(dy, run.inputs[0], run.outputs[0], *window)
    if params.type == "L2":
        y = run.outputs[0]
        shares = np.divide(dy, y, out=np.zeros_like(dy), where=y != 0)
        return pooled_sum(shares, shape, *window) * run.inputs[0]
    return pooled_sum(dy / pooling_divisor(params, shape[-2:], out, edges), shape, *window)


def _global_pooling(run: LayerRun, dy: Array) -> Array:
    shape = run.input_shapes[0]
    if run.params.type == "AVERAGE":
        return np.broadcast_to(dy / dy.dtype.type(math.prod(shape[-2:])), shape)
    x, y = run.inputs[0], run.outputs[0]
    if run.params.type == "MAX":
        return first_of(x, y, (-2, -1)) * dy
    return x * np.divide(dy, y, out=np.zeros_like(dy), where=y != 0)
