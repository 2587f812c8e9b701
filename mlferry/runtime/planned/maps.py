"""Maps: the blobs of one sample, channels-last, with a border for those who pad."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Border = tuple[int, int, int, int]  # above, below, left, right
NO_BORDER: Border = (0, 0, 0, 0)
_ALIGNMENT = 16  # float32 values: one cache line


def aligned(*shape: int, fill: float = 0.0) -> Array:
    """An array that starts at a cache line."""
    size = int(np.prod(shape))
    whole = np.full(size + _ALIGNMENT, fill, np.float32)
    start = -(whole.ctypes.data // 4) % _ALIGNMENT
    return whole[start : start + size].reshape(shape)


@dataclass(frozen=True)
class Map:
    """Values [H, W, C] in a border that nobody writes.

    Attributes:
        inner: the values.
        border: how many entries lie around them.
        fill: what the border holds.
        outer: values and border.
    """

    inner: Array
    border: Border
    fill: float
    outer: Array

    @classmethod
    def new(cls, shape: tuple[int, int, int], border: Border = NO_BORDER, fill: float = 0.0) -> Map:
        """A map of its own."""
        height, width, channels = shape
        above, below, left, right = border
        outer = aligned(above + height + below, left + width + right, channels, fill=fill)
        inner = outer[above : above + height, left : left + width]
        return cls(inner, border, fill, outer)

    def channels(self, start: int, count: int) -> Map:
        """Some of the channels; without the border."""
        part = self.inner[..., start : start + count]
        return Map(part, NO_BORDER, 0.0, part)


def rows_of(x: Array) -> Array | None:
    """[H, W, C] as [H * W, C], where its pixels lie evenly."""
    height, width, channels = x.shape
    step = x.strides[1]
    if x.strides[2] != x.itemsize or (height > 1 and x.strides[0] != width * step):
        return None
    return np.lib.stride_tricks.as_strided(x, (height * width, channels), (step, x.itemsize))
