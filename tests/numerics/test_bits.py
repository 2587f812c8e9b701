"""Streams of integers of less than a byte."""

from __future__ import annotations

import numpy as np
import pytest

from mlferry.numerics.bits import packed, unpacked


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1001])
def test_packing(bits: int, count: int) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, count).astype(np.uint8)
    text = "".join(f"{value:0{bits}b}"[::-1] for value in values)  # the least significant first
    right = bytes(int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8))
    assert packed(values, bits) == right
    np.testing.assert_array_equal(unpacked(np.frombuffer(right, np.uint8), bits, count), values)
    signed = (values.astype(np.int64) - (1 << (bits - 1))).astype(np.int8)
    again = unpacked(np.frombuffer(packed(signed, bits), np.uint8), bits, count, signed=True)
    np.testing.assert_array_equal(again, signed)
