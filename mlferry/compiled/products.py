"""Products of rows with weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.vectors import BYTES, Array, tile_for
from mlferry.compiled.windows import convolve

_AT_ITS_PLACE = np.zeros(1, np.int64)
_INFINITE = np.float32(np.inf)


@dataclass(frozen=True)
class PackedProduct:
    """A product with weights [inputs, outputs], and a bias.

    Attributes:
        weights: the weights.
        bias: filled up as they are.
    """

    weights: PackedMatrix
    bias: Array

    @classmethod
    def of(cls, matrix: Array, bias: Array | None) -> PackedProduct:
        """Pack a matrix [inputs, outputs], and a bias [outputs]."""
        weights = PackedMatrix.of(matrix)
        return cls(weights, weights.padded(bias))

    def __call__(self, rows: Array) -> Array:
        """For rows [n, inputs] in float32: [n, outputs]."""
        count, columns = len(rows), self.weights.columns
        y = np.empty((1, count, columns), np.float32)
        if not y.size:
            return y[0]
        if rows.strides[1] != BYTES:
            rows = np.ascontiguousarray(rows)
        convolve(
            rows[None], 0, rows.strides[0], _AT_ITS_PLACE, self.weights.inner, self.weights.values,
            self.bias, y, False, False, y, -_INFINITE, _INFINITE, tile_for(count),
        )  # fmt: skip
        return y[0]
