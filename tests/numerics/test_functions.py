"""Functions of float32 values beside the same in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlferry.numerics import functions

GRID = np.concatenate([np.linspace(-8, 8, 200_001), [0.0, -0.0, 1e-30, 1e20, -3e38]])
EXACT = np.array([math.erf(x) for x in np.float32(GRID).tolist()])


def test_erf() -> None:
    """To 2.5e-7, and to 4e-7 of itself; 1 and -1 far away, where the polynomial overflows."""
    with np.errstate(over="ignore"):
        result = functions.erf(GRID.astype(np.float32))
    assert np.abs(result - EXACT).max() < 2.5e-7
    known = EXACT != 0
    assert np.abs(result[known] / EXACT[known] - 1).max() < 4e-7
    ends = functions.erf(np.array([np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(ends, [1, -1, np.nan])
    assert np.signbit(functions.erf(np.array([-0.0], np.float32)))
    assert functions.erf(np.zeros((2, 0, 3), np.float32)).shape == (2, 0, 3)


@pytest.mark.parametrize("mode", ["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"])
def test_gelu(mode: str) -> None:
    x = np.linspace(-8, 8, 20_001).astype(np.float32)
    before, wide = x.copy(), x.astype(np.float64)
    if mode == "EXACT":
        expected = wide * [(1 + math.erf(v / math.sqrt(2))) / 2 for v in wide]
    elif mode == "TANH_APPROXIMATION":
        expected = wide / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    else:
        expected = wide / (1 + np.exp(-1.702 * wide))
    np.testing.assert_allclose(functions.gelu(x, mode), expected, atol=1e-6, rtol=1e-6)
    np.testing.assert_array_equal(x, before)
