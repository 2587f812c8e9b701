"""Contiguous copies in another order of axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlferry.numerics.copies import row_major

SHAPES = [(), (7,), (20000,), (130, 300), (5, 100, 40), (3, 3, 64, 70), (1, 1, 128, 256),
          (2, 3, 4, 50, 40)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_every_order_of_axes(shape: tuple[int, ...], dtype: type) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 10).astype(dtype)
    for order in itertools.permutations(range(array.ndim)):
        moved = array.transpose(order)
        copy = row_major(moved, "<f4")
        assert copy.flags.c_contiguous
        assert copy.dtype == np.float32
        np.testing.assert_array_equal(copy, moved.astype(np.float32), strict=True)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(40000.0).reshape(200, 200)[::-1].T,
        np.arange(40000.0).reshape(200, 200).T[::2],
        np.broadcast_to(np.float32(3), (200, 200)),
        np.arange(90000.0).reshape(300, 300)[:200, :150].T,
    ],
    ids=["reversed", "every other", "one value", "a part"],
)
def test_views_that_are_no_mere_transposes(array: np.ndarray) -> None:
    np.testing.assert_array_equal(row_major(array, np.float32), array.astype(np.float32))


def test_what_is_so_is_not_copied() -> None:
    array = np.zeros((200, 200), np.float32)
    assert row_major(array, np.float32) is array
