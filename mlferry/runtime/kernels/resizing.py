"""Upsampling and resizing of height and width."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.runtime.kernels.registry import Array, kernel
from mlferry.spec.params import Params
from mlferry.spec.shapes.resizing import upsample as upsampled

Grid = NDArray[np.float64]


@kernel("upsample")
def upsample(p: Params, x: Array) -> Array:
    """NN repeats pixels; BILINEAR samples one of three grids.

    DEFAULT: i * (in - in / out) / (out - 1); ALIGN_CORNERS_TRUE: i * (in - 1) / (out - 1);
    ALIGN_CORNERS_FALSE: (i + 0.5) * in / out - 0.5, each kept inside the image.
    """
    height, width = (size or 0 for size in upsampled(p, x.shape)[0][-2:])
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
    height, width = p.targetSize
    grid = SAMPLING[p.mode.samplingMethod]
    return interpolate(x, grid(x.shape[-2], height), grid(x.shape[-1], width))


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
# Where the samples of one axis lie, in pixels of the input.
SAMPLING = {
    "STRICT_ALIGN_ENDPOINTS_MODE": lambda size, out: (
        np.full(1, (size - 1) / 2) if out == 1 else np.linspace(0, size - 1, out)
    ),
    "ALIGN_ENDPOINTS_MODE": _align_corners,
    "UPSAMPLE_MODE": lambda size, out: np.arange(out) * size / out,
    "ROI_ALIGN_MODE": _half_pixel,
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
