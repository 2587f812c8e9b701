"""Gradients of upsampling and resizing."""

from __future__ import annotations

import numpy as np

from mlferry.layers.gradients import INPUTS, SHAPES, Array, LayerRun, gradient
from mlferry.layers.resizing import kernel
from mlferry.layers.resizing.definition import target_size
from mlferry.numerics.gradients import interpolated
from mlferry.numerics.resizing import BOX_CODINGS, SAMPLING, UPSAMPLE_GRIDS, corners


@gradient("upsample", keeps=SHAPES)
def upsample(run: LayerRun, dy: Array) -> Array:
    """A repeated pixel gets the sum of the gradients of its copies."""
    params, shape = run.params, run.input_shapes[0]
    *outer, height, width = shape
    if params.mode == "NN" and not params.fractionalScalingFactor:
        down, across = params.scalingFactor
        return dy.reshape(*outer, height, down, width, across).sum(axis=(-3, -1))
    if params.mode == "NN":
        return run.moved(kernel.upsample, dy)
    grid = UPSAMPLE_GRIDS[params.linearUpsampleMode]
    rows, columns = grid(height, dy.shape[-2]), grid(width, dy.shape[-1])
    return interpolated(dy, shape, rows, columns)


@gradient("resizeBilinear", keeps=SHAPES)
def resize_bilinear(run: LayerRun, dy: Array) -> Array:
    shape = run.input_shapes[0]
    height, width = target_size(run.params)
    grid = SAMPLING[run.params.mode.samplingMethod]
    rows, columns = grid(0, shape[-2] - 1, height), grid(0, shape[-1] - 1, width)
    return interpolated(dy, shape, rows, columns)


@gradient("cropResize", keeps=INPUTS)
def crop_resize(run: LayerRun, dy: Array) -> tuple[Array, None]:
    """The gradient of the images; boxes count as constants."""
    params, shape = run.params, run.input_shapes[0]
    height, width = target_size(params)
    grid = SAMPLING[params.mode.samplingMethod]
    coding = BOX_CODINGS[params.boxIndicesMode.boxMode]
    boxes = run.inputs[1]
    total = np.zeros(shape, dy.dtype)
    for values, patch in zip(boxes.reshape(boxes.shape[0], -1), dy, strict=True):
        first, last = 0, shape[1]
        if len(values) == 5:
            first = int(values[0])
            last = first + 1
        box = values[-4:].astype(np.float64) * params.spatialScale
        top, left, bottom, right = corners(
            box, coding, shape[-2:], normalized=params.normalizedCoordinates
        )
        rows, columns = grid(top, bottom, height), grid(left, right, width)
        total[0, first:last] += interpolated(patch, shape, rows, columns)
    return total, None
