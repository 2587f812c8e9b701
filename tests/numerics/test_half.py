"""Rounding to half precision beside NumPy's casts."""

from __future__ import annotations

import numpy as np
import pytest

from mlferry.compiled import using
from mlferry.numerics import half

EDGES = np.float32([
    0.0, -0.0, 1.0, -1.0, 65504, 65519.99, 65520, 65536, -65520, 3.4e38, -3.4e38, np.inf, -np.inf,
    np.nan, 6.1035156e-05, 6.0975552e-05, 5.9604645e-08, 2.9802322e-08, 2.9802326e-08, -1e-9, 1e-45,
    1.00048828125, 1.00146484375, 2049, 2051,
])  # fmt: skip


def bits(kind: str) -> np.ndarray:
    random = np.random.default_rng(5)
    if kind == "any bits":
        return random.integers(0, 2**32, 1 << 20, dtype=np.uint64).astype(np.uint32)
    if kind == "edges":
        return np.resize(EDGES, 1000).view(np.uint32)
    if kind == "few":
        return EDGES.view(np.uint32)
    # halfway between two numbers of float16, and one bit beside
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    between = (halves.astype(np.float32).view(np.uint32) + 0x1000).repeat(3)
    return between + np.tile(np.uint32([0, 1, 2**32 - 1]), len(halves))


@pytest.mark.parametrize("compiled", [False, None])
@pytest.mark.parametrize("kind", ["any bits", "edges", "few", "ties"])
def test_rounding_is_that_of_casts(kind: str, compiled: bool | None) -> None:
    inputs = bits(kind).view(np.float32)
    before = inputs.copy()
    with np.errstate(all="ignore"):
        right = inputs.astype(np.float16).astype(np.float32)
        with using(compiled):
            got = half.rounded(inputs)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, right)
    numbers = ~np.isnan(right)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(right[numbers]))
    np.testing.assert_array_equal(inputs, before)


@pytest.mark.parametrize("compiled", [False, None])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (40, 1, 30)])
def test_shapes_and_orders(shape: tuple[int, ...], compiled: bool | None) -> None:
    inputs = np.random.default_rng(0).standard_normal(shape)
    for array in (inputs, inputs.T, inputs.astype(np.float32)):
        with using(compiled):
            got = half.rounded(np.asarray(array))
        assert got.shape == np.shape(array)
        np.testing.assert_array_equal(got, np.float32(array).astype(np.float16))


def test_rounding_in_place_and_in_parts() -> None:
    inputs = np.float32(np.random.default_rng(0).normal(0, 3, (300, 20, 16)))
    inputs[7, 3] = EDGES[:16]
    with np.errstate(all="ignore"):
        right = inputs.astype(np.float16).astype(np.float32)
        outer = np.zeros((302, 22, 18), np.float32)
        outer[1:-1, 1:-1, 1:-1] = inputs
        inner = outer[1:-1, 1:-1, 1:-1]
        half.round_into(inner, inner)
        half.round_into(inputs, inputs)
    np.testing.assert_array_equal(inputs, right)
    np.testing.assert_array_equal(inner, right)
    outer[1:-1, 1:-1, 1:-1] = 0
    assert not outer.any()


def test_widening_is_that_of_casts() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 2, 8)
    result = np.empty(finite.shape, np.float32)
    half.widen_into(finite, result)
    np.testing.assert_array_equal(result.view(np.int32), finite.astype(np.float32).view(np.int32))
    assert half.is_finite(finite)
    for bad in (np.inf, -np.inf, np.nan):
        assert not half.is_finite(np.append(finite.ravel(), np.float16(bad)))
    with np.errstate(invalid="ignore"):  # numbers that signal
        np.testing.assert_array_equal(half.wide(every), every.astype(np.float32))
    turned = finite[:, 0].T
    np.testing.assert_array_equal(half.wide(turned), turned.astype(np.float32))
    assert half.wide(turned).flags.c_contiguous
    assert half.wide(np.float16(0.5)) == 0.5


@pytest.mark.parametrize("kind", ["any bits", "edges", "few", "ties"])
def test_what_is_not_zero_does_not_become_zero(kind: str) -> None:
    inputs = bits(kind).view(np.float32)
    with np.errstate(all="ignore"):
        right = inputs.astype(np.float16)
    got = half.narrowed(inputs)
    vanished = (right == 0) & (inputs != 0)
    np.testing.assert_array_equal(got[~vanished], right[~vanished])
    np.testing.assert_array_equal(got[vanished], np.copysign(np.float16(6e-8), inputs[vanished]))
