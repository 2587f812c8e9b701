"""Maps: the blobs of one sample, channels-last, with a border for layers that pad."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlferry.memory import CACHE_LINE, aligned

Array = NDArray[np.float32]
Border = tuple[int, int, int, int]  # above, below, left, right
NO_BORDER: Border = (0, 0, 0, 0)
_LINE = CACHE_LINE // 4  # float32 values
_CHUNK = 1 << 21  # float32 values that a workspace takes at a time; untouched ones cost nothing


class Workspace:
    """Scratch memory of a running step, shared by all steps of a plan."""

    def __init__(self) -> None:
        self._chunk = aligned(_CHUNK)
        self._used = 0

    def restart(self) -> None:
        """Allow what was taken so far to be taken again, by something that runs at another time."""
        self._used = 0

    def take(self, *shape: int) -> Array:
        """An array that starts at a cache line."""
        size = int(np.prod(shape))
        if self._used + size > self._chunk.size:
            self._chunk, self._used = aligned(max(size, 2 * self._chunk.size)), 0
        buffer = self._chunk[self._used : self._used + size]
        self._used += -(-size // _LINE) * _LINE
        return buffer.reshape(shape)


@dataclass(frozen=True)
class Map:
    """Values [H, W, C] in a border that is never written.

    Attributes:
        inner: the values.
        border: how many entries lie around them.
        fill: what the border holds.
        outer: values and border.
        memory: all of the memory that it lies in, flat.
    """

    inner: Array
    border: Border
    fill: float
    outer: Array
    memory: Array

    @classmethod
    def new(cls, shape: tuple[int, int, int], border: Border = NO_BORDER, fill: float = 0.0) -> Map:
        """A map of its own."""
        result = cls.over(aligned(size_of(shape, border)), shape, border, fill)
        for part in result.around:
            part.fill(fill)
        return result

    @classmethod
    def over(cls, memory: Array, shape: tuple[int, int, int], border: Border, fill: float) -> Map:
        """A map at the start of some memory, whatever it holds."""
        height, width, channels = shape
        above, below, left, right = border
        outer = memory[: size_of(shape, border)].reshape(
            above + height + below, left + width + right, channels
        )
        inner = outer[above : above + height, left : left + width]
        return cls(inner, border, fill, outer, memory)

    @property
    def around(self) -> list[Array]:
        """The parts of the border."""
        above, _, left, _ = self.border
        return borders_of(self.outer, (above, left), self.inner.shape[:2])

    def channels(self, start: int, count: int) -> Map:
        """Some of the channels; without the border."""
        part = self.inner[..., start : start + count]
        return Map(part, NO_BORDER, 0.0, part, self.memory)


def borders_of(outer: Array, start: tuple[int, int], size: tuple[int, int]) -> list[Array]:
    """What lies around an inner part of a map, which has a start and a size."""
    (above, left), (height, width) = start, size
    below, right = above + height, left + width
    lines = outer[above:below]
    parts = [outer[:above], outer[below:], lines[:, :left], lines[:, right:]]
    return [part for part in parts if part.size]


def size_of(shape: tuple[int, int, int], border: Border) -> int:
    """How many values a map of a shape [H, W, C] takes with its border."""
    above, below, left, right = border
    return (above + shape[0] + below) * (left + shape[1] + right) * shape[2]


def rows_of(x: Array) -> Array | None:
    """[H, W, C] as [H * W, C], where its pixels lie evenly."""
    height, width, channels = x.shape
    step = x.strides[1]
    if x.strides[2] != x.itemsize or (height > 1 and x.strides[0] != width * step):
        return None
    return np.lib.stride_tricks.as_strided(x, (height * width, channels), (step, x.itemsize))
