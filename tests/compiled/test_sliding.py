"""Pooling and depthwise convolutions of planes, beside naive loops in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry.compiled import using
from mlferry.compiled.sliding import LARGEST, SUM, WEIGHTED, slide
from mlferry.compiled.vectors import LANES
from mlferry.errors import PredictionError
from mlferry.numerics.convolution import convolve, pool

FUNCTIONS: dict[int, Callable[[Any, Any], Any]] = {
    SUM: lambda values, _: values.sum(),
    LARGEST: lambda values, _: values.max(),
    WEIGHTED: lambda values, weights: (values * weights).sum(),
}
# planes, extents, kernel, strides, dilations, start, extents of the result
CASES = {
    "one value": ((1, 1, 1), (1, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
    "three by three": ((2, 9, 40), (3, 3), (1, 1), (1, 1), (1, 1), (9, 40)),
    "steps": ((3, 9, 41), (3, 3), (2, 2), (1, 1), (1, 1), (5, 21)),
    "no border": ((3, 8, 64), (2, 2), (2, 2), (1, 1), (0, 0), (4, 32)),
    "long steps down": ((2, 20, 7), (2, 3), (5, 1), (1, 1), (0, 1), (4, 7)),
    "dilated": ((2, 12, 23), (3, 2), (1, 2), (2, 3), (2, 1), (12, 11)),
    "wide": ((1, 3, 5 * LANES + 3), (1, 7), (1, 1), (1, 1), (0, 3), (3, 5 * LANES + 3)),
    "windows beyond the end": ((2, 5, 6), (2, 2), (2, 2), (1, 1), (0, 0), (4, 5)),
    "windows of the border alone": ((2, 3, 3), (2, 2), (1, 1), (1, 1), (4, 5), (9, 20)),
    "many bands": ((1, 50, 500), (3, 3), (1, 1), (1, 1), (1, 1), (50, 500)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("multiplier", [1, 2])
def test_windows_of_planes(name: str, function: int, multiplier: int) -> None:
    extent, kernel, strides, dilations, start, size = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, extent).astype(np.float32)
    weights = rng.normal(0, 1, (multiplier, kernel[0] * kernel[1])).astype(np.float32)
    y = np.full((extent[0] * multiplier, *size), np.nan, np.float32)
    slide(function, x, weights, kernel, strides, dilations, start, y)
    reach = [
        front + n * s + k * d
        for front, n, s, k, d in zip(start, size, strides, kernel, dilations, strict=True)
    ]
    filler = -np.inf if function == LARGEST else 0.0
    wide = np.full((extent[0], *(n + m for n, m in zip(extent[1:], reach, strict=True))), filler)
    wide[:, start[0] : start[0] + extent[1], start[1] : start[1] + extent[2]] = x
    right = np.empty(y.shape)
    for plane, i, j in np.ndindex(*y.shape):
        rows = i * strides[0] + np.arange(kernel[0]) * dilations[0]
        columns = j * strides[1] + np.arange(kernel[1]) * dilations[1]
        values = wide[plane // multiplier][np.ix_(rows, columns)]
        right[plane, i, j] = FUNCTIONS[function](
            values, weights[plane % multiplier].reshape(kernel)
        )
    np.testing.assert_allclose(y, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_wins_a_maximum(value: float) -> None:
    x = np.zeros((1, 5, 20), np.float32)
    x[0, 2, 7] = value
    y = np.empty((1, 5, 20), np.float32)
    slide(LARGEST, x, None, (3, 3), (1, 1), (1, 1), (1, 1), y)
    right = np.zeros_like(y)
    if value != -np.inf:
        right[0, 1:4, 6:9] = value
    np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize(
    ("planes", "taps", "stride", "left"),
    [(3, 4, 1, 0), (2, 5, 1, 0), (2, 4, 3, 0), (2, 4, 1, -1)],
    ids=["planes", "taps", "step", "start"],
)
def test_extents_that_do_not_fit(planes: int, taps: int, stride: int, left: int) -> None:
    x, weights = np.zeros((2, 4, 4), np.float32), np.zeros((2, taps), np.float32)
    with pytest.raises(PredictionError, match="do not give"):
        slide(
            WEIGHTED, x, weights, (2, 2), (1, stride), (1, 1), (0, left),
            np.zeros((planes, 3, 1), np.float32),
        )  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_beside_numpy(stride: int, order: Any, dtype: Any) -> None:
    """Whichever way they go: other steps and types go by NumPy."""
    x = np.random.default_rng(1).normal(0, 1, (2, 3, 11, 9)).astype(dtype).copy(order=order)
    weights = np.random.default_rng(2).normal(0, 1, (6, 1, 3, 3)).astype(dtype)
    edges = ((1, 1), (1, 1))
    size = [(n + 2 - 3) // stride + 1 for n in (11, 9)]
    results = []
    for choice in (True, False):
        with using(choice):
            results.append(
                [
                    convolve(x, weights, (stride, stride), (1, 1), edges, 3),
                    pool(x, (3, 3), (stride, stride), edges, size, np.add, 0.0),
                    pool(x, (3, 3), (stride, stride), edges, size, np.maximum, -np.inf),
                ]
            )
    for ours, right in zip(*results, strict=True):
        assert ours.dtype == right.dtype
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-5)
