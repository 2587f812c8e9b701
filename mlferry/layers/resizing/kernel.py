"""Upsampling and resizing of height and width."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.layers.resizing.definition import target_size, upsample as upsampled

Grid = NDArray[np.float64]


@kernel("upsample")
def upsample(p: Params, x: Array) -> Array:
    """NN repeats pixels; BILINEAR samples one of three grids.

    DEFAULT: i * (in - in / out) / (out - 1); ALIGN_CORNERS_TRUE: i * (in - 1) / (out - 1);
    ALIGN_CORNERS_FALSE: (i + 0.5) * in / out - 0.5, each kept inside the image.
    """
    height, width = (size or 0 for size in upsampled(p, x.shape)[0][-2:])
    if p.mode == "NN" and not p.fractionalScalingFactor:
        down, across = p.scalingFactor
        rows = np.repeat(x, across, axis=-1)[..., None, :]
        shape = (*rows.shape[:-2], down, width)
        return np.broadcast_to(rows, shape).reshape(*x.shape[:-2], height, width)
    if p.mode == "NN":
        for axis, size in ((-2, height), (-1, width)):
            extent = x.shape[axis]
            nearest = np.minimum((np.arange(size) * extent // size), extent - 1)
            x = np.take(x, nearest, axis=axis)
        return x
    grid = _UPSAMPLE_GRIDS[p.linearUpsampleMode]
    return interpolate(x, grid(x.shape[-2], height), grid(x.shape[-1], width))


@kernel("resizeBilinear")
def resize_bilinear(p: Params, x: Array) -> Array:
    height, width = target_size(p)
    grid = SAMPLING[p.mode.samplingMethod]
    rows, columns = grid(0, x.shape[-2] - 1, height), grid(0, x.shape[-1] - 1, width)
    return interpolate(x, rows, columns)


# The order of height and width in a box, and whether it is given by its centre and size.
_BOXES = {
    "CORNERS_HEIGHT_FIRST": (True, False),
    "CORNERS_WIDTH_FIRST": (False, False),
    "CENTER_SIZE_HEIGHT_FIRST": (True, True),
    "CENTER_SIZE_WIDTH_FIRST": (False, True),
}


def _corners(p: Params, box: Array, height: int, width: int) -> tuple[float, ...]:
    """Top, left, bottom and right of a box, in pixels."""
    height_first, centered = _BOXES[p.boxIndicesMode.boxMode]
    a, b, c, d = (float(value) * p.spatialScale for value in box)
    if not height_first:
        a, b, c, d = b, a, d, c
    if centered:
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if p.normalizedCoordinates:
        a, b, c, d = a * (height - 1), b * (width - 1), c * (height - 1), d * (width - 1)
    return a, b, c, d


@kernel("cropResize")
def crop_resize(p: Params, x: Array, boxes: Array) -> Array:
    """Each box of [N, 1, 4, 1, 1] out of every image of the batch.

    Boxes of 5 values start with the index of the image that they are cut out of.
    """
    height, width = target_size(p)
    grid = SAMPLING[p.mode.samplingMethod]
    patches = []
    for values in boxes.reshape(boxes.shape[0], -1):
        images = x[0]
        if len(values) == 5:
            index = int(values[0])
            if not 0 <= index < len(images):
                raise PredictionError(f"a box of image {index}; the batch has {len(images)}")
            images = images[index : index + 1]
        top, left, bottom, right = _corners(p, values[-4:], *x.shape[-2:])
        patches.append(interpolate(images, grid(top, bottom, height), grid(left, right, width)))
    return np.stack(patches)


def _default_grid(size: int, out: int) -> Grid:
    if out == 1:
        return np.zeros(1)
    return np.arange(out) * (size - size / out) / (out - 1)


def _align_corners(size: int, out: int) -> Grid:
    return np.zeros(1) if out == 1 else np.arange(out) * (size - 1) / (out - 1)


def _half_pixel(size: int, out: int) -> Grid:
    return (np.arange(out) + 0.5) * size / out - 0.5


_UPSAMPLE_GRIDS = {
    "DEFAULT": _default_grid,
    "ALIGN_CORNERS_TRUE": _align_corners,
    "ALIGN_CORNERS_FALSE": _half_pixel,
}


def _upsample_mode(start: float, end: float, out: int) -> Grid:
    spacing = (end - start + 1) / out
    return np.minimum(start + np.arange(out) * spacing, max(start, end))


def _align_endpoints(start: float, end: float, out: int) -> Grid:
    if out == 1:
        return np.full(1, (start + end) / 2)
    return np.linspace(start, end, out, dtype=np.float64)


# Where so many samples of the interval between two pixels lie. It is the whole axis when an
# image is resized, and the side of a box when one is cut out.
SAMPLING: dict[str, Callable[[float, float, int], Grid]] = {
    "STRICT_ALIGN_ENDPOINTS_MODE": np.linspace,
    "ALIGN_ENDPOINTS_MODE": _align_endpoints,
    "UPSAMPLE_MODE": _upsample_mode,
    "ROI_ALIGN_MODE": lambda start, end, out: (
        start + (np.arange(out) + 0.5) * max(1, end - start) / out
    ),
}


def interpolate(x: Array, rows: Grid, columns: Grid) -> Array:
    """Sample the last two axes bilinearly; positions outside take the edge."""
    for axis, positions in ((-2, rows), (-1, columns)):
        last = x.shape[axis] - 1
        clipped = np.clip(positions, 0, last)
        low = np.floor(clipped).astype(int)
        high = np.minimum(low + 1, last)
        weight = (clipped - low).astype(np.float32)
        weight = weight.reshape(-1, *(1,) * (-axis - 1))
        x = np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight
    return x
