"""The sample positions of a resized image, and reading an image between its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.numerics.shapes import Array

Grid = NDArray[np.float64]


def scaled(size: int, factor: float) -> int:
    """A size times a factor that is stored in float32: 10 times 0.7 is 7, not 6."""
    return int(np.floor(np.float32(size) * np.float32(factor or 1)))


class BoxCoding(NamedTuple):
    """How to read the four numbers of a box.

    Attributes:
        order: the places of top, left, bottom and right, or of the centre and the size.
        centered: whether they are the centre and the size.
    """

    order: tuple[int, int, int, int]
    centered: bool


BOX_CODINGS = {
    "CORNERS_HEIGHT_FIRST": BoxCoding((0, 1, 2, 3), False),
    "CORNERS_WIDTH_FIRST": BoxCoding((1, 0, 3, 2), False),
    "CENTER_SIZE_HEIGHT_FIRST": BoxCoding((0, 1, 2, 3), True),
    "CENTER_SIZE_WIDTH_FIRST": BoxCoding((1, 0, 3, 2), True),
}


def corners(
    box: Array, coding: BoxCoding, size: Sequence[int], *, normalized: bool
) -> tuple[float, ...]:
    """Top, left, bottom and right of a box, in pixels.

    Args:
        box: its four numbers.
        coding: how to read them.
        size: height and width of the image.
        normalized: whether 1 is the last pixel.
    """
    top, left, bottom, right = (float(box[place]) for place in coding.order)
    if coding.centered:
        height, width = bottom, right
        top, bottom = top - height / 2, top + height / 2
        left, right = left - width / 2, left + width / 2
    if normalized:
        last_row, last_column = size[0] - 1, size[1] - 1
        top, bottom = top * last_row, bottom * last_row
        left, right = left * last_column, right * last_column
    return top, left, bottom, right


def _default_grid(size: int, out: int) -> Grid:
    if out == 1:
        return np.zeros(1)
    return np.arange(out) * (size - size / out) / (out - 1)


def _align_corners(size: int, out: int) -> Grid:
    return np.zeros(1) if out == 1 else np.arange(out) * (size - 1) / (out - 1)


def _half_pixel(size: int, out: int) -> Grid:
    return (np.arange(out) + 0.5) * size / out - 0.5


UPSAMPLE_GRIDS = {
    "DEFAULT": _default_grid,
    "ALIGN_CORNERS_TRUE": _align_corners,
    "ALIGN_CORNERS_FALSE": _half_pixel,
}


def _upsample_mode(start: float, end: float, out: int) -> Grid:
    spacing = (end - start + 1) / out
    positions: Grid = np.minimum(start + np.arange(out) * spacing, max(start, end))
    return positions


def _align_endpoints(start: float, end: float, out: int) -> Grid:
    if out == 1:
        return np.full(1, (start + end) / 2)
    return np.linspace(start, end, out, dtype=np.float64)


# The positions of so many samples between two pixels: on the whole axis when an image is resized,
# on the side of a box when one is cut out.
SAMPLING: dict[str, Callable[[float, float, int], Grid]] = {
    "STRICT_ALIGN_ENDPOINTS_MODE": np.linspace,
    "ALIGN_ENDPOINTS_MODE": _align_endpoints,
    "UPSAMPLE_MODE": _upsample_mode,
    "ROI_ALIGN_MODE": lambda start, end, out: (
        start + (np.arange(out) + 0.5) * max(1, end - start) / out
    ),
}


def interpolate(x: Array, rows: Grid, columns: Grid) -> Array:
    """Sample the last two axes bilinearly; positions outside get the edge value."""
    for axis, positions in ((-2, rows), (-1, columns)):
        last = x.shape[axis] - 1
        clipped = np.clip(positions, 0, last)
        low = np.floor(clipped).astype(int)
        high = np.minimum(low + 1, last)
        weight = (clipped - low).astype(np.float32)
        weight = weight.reshape(-1, *(1,) * (-axis - 1))
        x = np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight
    return x
