"""The transforms of Winograd's minimal filtering, for kernels of three by three pixels.

A tile of m x m results needs (m + 2)^2 products a pair of channels, not 9 m^2 (Lavin and Gray,
"Fast algorithms for convolutional neural networks", 2016). Input and kernel are polynomials, which
are multiplied at some points and at infinity. The points determine what is lost by rounding
(Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for deep neural
networks", 2018): with these, the error is about twice that of a plain sum, and with the common 1,
-1, 2 and -2 four times.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Matrix = list[list[Fraction]]

_POINTS = {2: (0, 1, -1), 4: (0, Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2))}
_KERNEL = 3
TILES = tuple(_POINTS)
"""Results of a tile along an axis."""
_AT_ONCE = 16  # kernels that are transformed at a time, in double precision


def _with_zeros(zeros: Sequence[Fraction], size: int) -> list[Fraction]:
    """The coefficients of the polynomial with these zeros, the constant one first."""
    result = [Fraction(1)]
    for zero in zeros:
        raised, scaled = [Fraction(0), *result], [*(-zero * c for c in result), Fraction(0)]
        result = [a + b for a, b in zip(raised, scaled, strict=True)]
    return result + [Fraction(0)] * (size - len(result))


def transforms_at(points: Sequence[Fraction]) -> tuple[Matrix, Matrix, Matrix]:
    """Those of input, kernel and result, at some points and infinity.

    Tiles have one result for each point but one. Each row of the transform of the input has a 1.
    """
    points, size = tuple(points), len(points) + 1
    m = size - _KERNEL + 1
    others = [tuple(q for q in points if q != p) for p in points]
    before = [_with_zeros(zeros, size) for zeros in (*others, points)]
    kernel = [
        [p**k / prod(p - q for q in rest) for k in range(_KERNEL)]
        for p, rest in zip(points, others, strict=True)
    ]
    behind = [[*(p**k for p in points), Fraction(k == m - 1)] for k in range(m)]
    return before, [*kernel, [Fraction(0), Fraction(0), Fraction(1)]], behind


_ALL = {m: transforms_at(tuple(map(Fraction, points))) for m, points in _POINTS.items()}
INPUT = {m: np.array(before, np.float32) for m, (before, _, _) in _ALL.items()}
"""By tile, the transform of the input along an axis, [m + 2, m + 2]."""
RESULT = {m: np.array(behind, np.float32) for m, (_, _, behind) in _ALL.items()}
"""By tile, the transform of the products along an axis, [m, m + 2]."""


def transformed(weights: Array, m: int) -> Array:
    """[M, C, 3, 3] as [(m + 2)^2, C, M]."""
    kernel = np.array(_ALL[m][1], np.float64)
    both = np.kron(kernel, kernel)
    count, channels = weights.shape[:2]
    result = np.empty((len(both), channels, count), np.float32)
    for start in range(0, count, _AT_ONCE):
        part = weights[start : start + _AT_ONCE].reshape(-1, channels, 9).transpose(2, 1, 0)
        product = both @ part.reshape(9, -1)
        result[..., start : start + _AT_ONCE] = product.reshape(len(both), channels, -1)
    return result
