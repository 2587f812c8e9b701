"""Weights in the order in which compiled products read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.vectors import DOT_TILES, LANES, dot_tile_for, tile_for
from mlferry.compiled.windows import DOTS, PANELS
from mlferry.errors import PredictionError
from mlferry.memory import aligned

Array = NDArray[np.float32]
PANEL = 2 * LANES  # columns that lie side by side
_FOLDING = 8  # multiplications that take as long as adding up the lanes of a vector


@dataclass(frozen=True)
class PackedWeights(ABC):
    """The weights of a product in the order in which compiled code reads them.

    Attributes:
        values: the weights.
        inner: the rows of the matrix.
        columns: its columns.
        function: of `windows.convolve`, that takes them.
        unit: the values of a segment of a window are a multiple of it.
    """

    values: Array
    inner: int
    columns: int
    function: ClassVar[int]
    unit: ClassVar[int] = 1

    @abstractmethod
    def tile_for(self, width: int, height: int) -> int:
        """Pixels at a time, for a result of such extents."""

    def check(self, inner: int, columns: int, run: int = 0) -> None:
        """Raise a `PredictionError` unless a product has these extents, and segments fit."""
        if run % self.unit:
            raise PredictionError(f"segments of {run} values are no multiple of {self.unit}")
        if (inner, columns) != (self.inner, self.columns):
            raise PredictionError(
                f"a product of {inner} values a row with {columns} results; "
                f"its weights are {self.inner} x {self.columns}"
            )

    def padded(self, bias: Array | None) -> Array:
        """One value for each column, zeros for None, filled up to whole vectors."""
        padded = self.zeros(self.columns)
        if bias is not None:
            padded[: self.columns] = bias
        return padded

    @staticmethod
    def zeros(columns: int) -> Array:
        """No bias for so many columns."""
        return np.zeros(-(-columns // LANES) * LANES, np.float32)


@dataclass(frozen=True)
class PackedColumns(PackedWeights):
    """A few columns, one after another."""

    function = DOTS
    unit = LANES

    @classmethod
    def of(cls, matrix: Array) -> PackedColumns:
        """Pack a matrix [inner, columns]."""
        values = aligned(matrix.size)
        values.reshape(matrix.shape[::-1])[:] = matrix.T
        return cls(values, *matrix.shape)

    def tile_for(self, width: int, height: int) -> int:
        """See `PackedWeights`."""
        return dot_tile_for(width, height, self.columns)


def packed_for_windows(matrix: Array, channels: int) -> PackedWeights:
    """Pack a matrix [pixels of a window * channels, columns] for a convolution.

    A vector of a few columns would be mostly empty. Where it takes less time, vectors of channels
    are multiplied instead, and their lanes added up.
    """
    inner, columns = matrix.shape
    is_possible = columns < LANES and columns in DOT_TILES and channels % LANES == 0
    if is_possible and columns * (inner // LANES + _FOLDING) < inner:
        return PackedColumns.of(matrix)
    return PackedMatrix.of(matrix)


@dataclass(frozen=True)
class PackedMatrix(PackedWeights):
    """Any number of columns.

    Their values are panels of two vectors of columns, then perhaps one of one vector, then what is
    left of the columns, filled up with 0 to a vector; each row by row.
    """

    function = PANELS

    def tile_for(self, width: int, height: int) -> int:
        """See `PackedWeights`."""
        return tile_for(width, height)

    @classmethod
    def empty(cls, inner: int, columns: int) -> PackedMatrix:
        """Zeros, for a matrix [inner, columns]."""
        return cls(aligned(cls.size(inner, columns), fill=0), inner, columns)

    @staticmethod
    def size(inner: int, columns: int) -> int:
        """How many values a matrix [inner, columns] takes."""
        return inner * (-(-columns // LANES) * LANES)

    @classmethod
    def of(cls, matrix: Array) -> PackedMatrix:
        """Pack a matrix [inner, columns]."""
        result = cls.empty(*matrix.shape)
        result.fill(matrix)
        return result

    def fill(self, matrix: Array) -> None:
        """Pack a matrix [inner, columns] into the values; what fills them up stays as it is."""
        for columns, panels in self.parts():
            part = matrix[:, columns].reshape(len(matrix), len(panels), -1).transpose(1, 0, 2)
            np.copyto(panels[..., : part.shape[2]], part)

    def parts(self) -> Iterator[tuple[slice, Array]]:
        """Some columns, and the panels [n, inner, width] in which they lie."""
        first = 0
        for width in (PANEL, LANES):
            panels = (self.columns - first) // width
            if panels:
                end = first + panels * width
                values = self.values[self.inner * first : self.inner * end]
                yield slice(first, end), values.reshape(panels, self.inner, width)
                first = end
        if first < self.columns:
            yield (
                slice(first, self.columns),
                self.values[self.inner * first :].reshape(1, self.inner, LANES),
            )
