"""Functions of the rows of a matrix."""

from __future__ import annotations

import numpy as np

from mlferry.compiled.vectors import REAL, Array, arrays, kernel


@kernel(
    arrays(2, "C"), arrays(1, "C"), arrays(1, "C"), REAL, arrays(2, "C", written=True),
    any_order=True,
)  # fmt: skip
def normalize_rows(x: Array, gamma: Array, beta: Array, epsilon: np.float32, y: Array) -> None:
    """Each row with mean 0 and variance 1, times a factor and plus a shift for each column.

    Args:
        x: [n, m].
        gamma: the factors, [m].
        beta: the shifts, [m].
        epsilon: what is added to variances.
        y: the result, [n, m].
    """
    count, width = x.shape
    for row in range(count):
        total = np.float32(0)
        for column in range(width):
            total += x[row, column]
        mean = total / np.float32(width)
        squares = np.float32(0)
        for column in range(width):
            centered = x[row, column] - mean
            squares += centered * centered
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + epsilon)
        for column in range(width):
            y[row, column] = (x[row, column] - mean) * scale * gamma[column] + beta[column]
