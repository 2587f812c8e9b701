"""Gradients of convolution and pooling over depth, height and width."""

from __future__ import annotations

import math

import numpy as np

from mlferry.layers.gradients import BOTH, INPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.volumes.definition import edges_of, kernel_shape, spans_of, triple
from mlferry.layers.volumes.kernel import cuts_of, divisor
from mlferry.numerics.convolution import convolve
from mlferry.numerics.gradients import (
    convolved_inputs,
    convolved_weights,
    cut_into,
    first_of,
    pooled_maximum,
    pooled_sum,
)


@gradient("convolution3d", keeps=SHAPES, weights_keep=INPUTS)
def convolution3d(run: LayerRun, dy: Array) -> Array | None:
    params, shape = run.params, run.input_shapes[0]
    kernel, strides, dilations = (triple(params, f) for f in ("kernel", "stride", "dilation"))
    run.weight("bias", lambda: dy.sum(axis=(0, 2, 3, 4)))
    weights = params.weight(
        "weights", kernel_shape(params), channel_axis=1 if params.isDeconvolution else 0
    )
    if not params.isDeconvolution:
        edges = edges_of(params, shape[2:], spans_of(params))
        run.weight(
            "weights",
            lambda: convolved_weights(
                dy, run.inputs[0], kernel, strides, dilations, edges, params.nGroups
            ),
        )
        if not run.wanted[0]:
            return None
        return convolved_inputs(dy, weights, strides, dilations, edges, shape[2:], params.nGroups)
    cuts, full, _ = cuts_of(params, shape)
    wide = cut_into(dy, full, cuts)
    none = ((0, 0),) * 3
    run.weight(
        "weights",
        lambda: convolved_weights(
            run.inputs[0], wide, kernel, strides, dilations, none, params.nGroups
        ),
    )
    return convolve(wide, weights, strides, dilations, none, params.nGroups)


@gradient("pooling3d", keeps=lambda params: BOTH if params.type == "MAX" else SHAPES)
def pooling3d(run: LayerRun, dy: Array) -> Array:
    params, shape = run.params, run.input_shapes[0]
    kernel, strides = triple(params, "kernel"), triple(params, "stride")
    edges = edges_of(params, shape[2:], kernel)
    if params.type == "MAX":
        return pooled_maximum(dy, run.inputs[0], run.outputs[0], kernel, strides, edges)
    size = (dy.shape[2], dy.shape[3], dy.shape[4])
    return pooled_sum(dy / divisor(params, shape[2:], size, edges), shape, kernel, strides, edges)


@gradient("globalPooling3d", keeps=lambda params: BOTH if params.type == "MAX" else SHAPES)
def global_pooling3d(run: LayerRun, dy: Array) -> Array:
    if run.params.type == "MAX":
        return first_of(run.inputs[0], run.outputs[0], (-3, -2, -1)) * dy
    shape = run.input_shapes[0]
    return np.broadcast_to(dy / dy.dtype.type(math.prod(shape[-3:])), shape)
