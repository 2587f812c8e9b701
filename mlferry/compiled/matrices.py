"""Weights in the order in which compiled products read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.vectors import LANES
from mlferry.errors import PredictionError

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
    def of(cls, matrix: Array) -> PackedMatrix:
        """Pack a matrix [inner, columns]."""
        inner, columns = matrix.shape
        values = np.zeros(inner * (-(-columns // LANES) * LANES), np.float32)
        first = 0
        for width in (PANEL, LANES):
            panels = (columns - first) // width
            part = matrix[:, first : first + panels * width]
            target = values[inner * first : inner * (first + panels * width)]
            np.copyto(
                target.reshape(panels, inner, width),
                part.reshape(inner, panels, width).transpose(1, 0, 2),
            )
            first += panels * width
        rest = values[inner * first :].reshape(inner, -1)
        rest[:, : columns - first] = matrix[:, first:]
        return cls(values, inner, columns)

    def check(self, inner: int, columns: int) -> None:
        """Raise a `PredictionError` unless a product has these extents."""
        if (inner, columns) != (self.inner, self.columns):
            raise PredictionError(
                f"a product of {inner} values a row with {columns} results; "
                f"its weights are {self.inner} x {self.columns}"
            )

    def padded(self, bias: Array | None) -> Array:
        """One value for each column, zeros for None, filled up as the columns are."""
        padded = np.zeros(-(-self.columns // LANES) * LANES, np.float32)
        if bias is not None:
            padded[: self.columns] = bias
        return padded
