"""Weights in the order in which compiled products read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.vectors import LANES
from mlferry.errors import PredictionError
from mlferry.memory import aligned

Array = NDArray[np.float32]
PANEL = 2 * LANES  # columns that lie side by side


@dataclass(frozen=True)
class PackedMatrix:
    """Weights in the order in which tiles read them.

    Attributes:
        values: panels of two vectors of columns, then perhaps one of one vector, then what is
            left of the columns, filled up with 0 to a vector; each row by row.
        inner: the rows of the matrix.
        columns: its columns.
    """

    values: Array
    inner: int
    columns: int

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
        for columns, panels in result.parts():
            part = matrix[:, columns].reshape(len(matrix), len(panels), -1).transpose(1, 0, 2)
            np.copyto(panels[..., : part.shape[2]], part)
        return result

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

    def check(self, inner: int, columns: int) -> None:
        """Raise a `PredictionError` unless a product has these extents."""
        if (inner, columns) != (self.inner, self.columns):
            raise PredictionError(
                f"a product of {inner} values a row with {columns} results; "
                f"its weights are {self.inner} x {self.columns}"
            )

    def padded(self, bias: Array | None) -> Array:
        """One value for each column, zeros for None, filled up as the columns are."""
        padded = self.zeros(self.columns)
        if bias is not None:
            padded[: self.columns] = bias
        return padded

    @staticmethod
    def zeros(columns: int) -> Array:
        """No bias for so many columns."""
        return np.zeros(-(-columns // LANES) * LANES, np.float32)
