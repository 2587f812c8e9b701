"""Upsampling and resizing of height and width."""

from __future__ import annotations

import numpy as np

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.layers.resizing.definition import target_size, upsample as upsampled
from mlferry.numerics.resizing import BOX_CODINGS, SAMPLING, UPSAMPLE_GRIDS, corners, interpolate


@kernel("upsample")
def upsample(params: Params, x: Array) -> Array:
    """NN repeats pixels; BILINEAR samples one of three grids.

    DEFAULT: i * (in - in / out) / (out - 1); ALIGN_CORNERS_TRUE: i * (in - 1) / (out - 1);
    ALIGN_CORNERS_FALSE: (i + 0.5) * in / out - 0.5, each kept inside the image.
    """
    height, width = (size or 0 for size in upsampled(params, x.shape)[0][-2:])
    if params.mode == "NN" and not params.fractionalScalingFactor:
        down, across = params.scalingFactor
        rows = np.repeat(x, across, axis=-1)[..., None, :]
        shape = (*rows.shape[:-2], down, width)
        return np.broadcast_to(rows, shape).reshape(*x.shape[:-2], height, width)
    if params.mode == "NN":
        for axis, size in ((-2, height), (-1, width)):
            extent = x.shape[axis]
            nearest = np.minimum((np.arange(size) * extent // size), extent - 1)
            x = np.take(x, nearest, axis=axis)
        return x
    grid = UPSAMPLE_GRIDS[params.linearUpsampleMode]
    return interpolate(x, grid(x.shape[-2], height), grid(x.shape[-1], width))


@kernel("resizeBilinear")
def resize_bilinear(params: Params, x: Array) -> Array:
    height, width = target_size(params)
    grid = SAMPLING[params.mode.samplingMethod]
    rows, columns = grid(0, x.shape[-2] - 1, height), grid(0, x.shape[-1] - 1, width)
    return interpolate(x, rows, columns)


@kernel("cropResize")
def crop_resize(params: Params, x: Array, boxes: Array) -> Array:
    """Each box of [N, 1, 4, 1, 1] out of every image of the batch.

    Boxes of 5 values start with the index of their image.
    """
    height, width = target_size(params)
    grid = SAMPLING[params.mode.samplingMethod]
    coding = BOX_CODINGS[params.boxIndicesMode.boxMode]
    patches = []
    for values in boxes.reshape(boxes.shape[0], -1):
        images = x[0]
        if len(values) == 5:
            index = int(values[0])
            if not 0 <= index < len(images):
                raise PredictionError(f"a box of image {index}; the batch has {len(images)}")
            images = images[index : index + 1]
        box = values[-4:].astype(np.float64) * params.spatialScale
        top, left, bottom, right = corners(
            box, coding, x.shape[-2:], normalized=params.normalizedCoordinates
        )
        patches.append(interpolate(images, grid(top, bottom, height), grid(left, right, width)))
    return np.stack(patches)
