"""Gradients of layers that move values without computing."""

from __future__ import annotations

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.gradients import INPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.reshaping import kernel


@gradient(
    "reshapeStatic", "flattenTo2D", "rankPreservingReshape", "squeeze", "expandDims", keeps=SHAPES
)
def reshaped(run: LayerRun, dy: Array) -> Array:
    return dy.reshape(run.input_shapes[0])


@gradient("transpose", keeps=SHAPES)
def transpose(run: LayerRun, dy: Array) -> Array:
    return dy.transpose(np.argsort([axis % dy.ndim for axis in run.params.axes]))


@gradient("permute", keeps=SHAPES)
def permute(run: LayerRun, dy: Array) -> Array:
    steps, *inner = ((0, 2, 3, 4)[axis] for axis in run.params.axis)
    return dy.transpose(np.argsort([steps, 1, *inner]))


@gradient("flatten", keeps=SHAPES)
def flatten(run: LayerRun, dy: Array) -> Array:
    *outer, channels, height, width = run.input_shapes[0]
    if run.params.mode != "CHANNEL_LAST":
        return dy.reshape(run.input_shapes[0])
    return np.moveaxis(dy.reshape(*outer, height, width, channels), -1, -3)


_KERNELS = {"reshape": kernel.reshape, "reorganizeData": kernel.reorganize_data}


@gradient(*_KERNELS, keeps=SHAPES)
def moved(run: LayerRun, dy: Array) -> Array:
    return run.moved(_KERNELS[run.params.kind], dy)


@gradient("padding", keeps=SHAPES)
def padding(run: LayerRun, dy: Array) -> Array:
    """A value repeated at the edge gets the sum of gradients."""
    if (run.params.which("PaddingType") or "constant") == "constant":
        (top, _), (left, _) = borders(run.params)
        height, width = run.input_shapes[0][-2:]
        return dy[..., top : top + height, left : left + width]
    return run.moved(kernel.padding, dy)


@gradient("crop", keeps=SHAPES)
def crop(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    params, shape = run.params, run.input_shapes[0]
    if len(run.input_shapes) > 1:
        top, left = params.offset or (0, 0)
    else:
        (top, _), (left, _) = borders(params, "cropAmounts")
    total = np.zeros(shape, dy.dtype)
    total[..., top : top + dy.shape[-2], left : left + dy.shape[-1]] = dy
    return (total, None)[: len(run.input_shapes)]


@gradient("constantPad", keeps=INPUTS)
def constant_pad(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    """The padding has no gradient."""
    shape, amounts = run.input_shapes[0], (*run.inputs, None)[1]
    widths = kernel.pad_widths(run.params, shape, amounts)
    inner = tuple(slice(start, start + n) for (start, _), n in zip(widths, shape, strict=True))
    return (dy[inner], None)[: len(run.input_shapes)]
