"""Large products and functions of arrays: what threads share is what one thread computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from mlferry import lanes
from mlferry.compiled import is_available, using
from mlferry.numerics import functions
from mlferry.numerics.convolution import convolve
from mlferry.numerics.normalization import layer_normalized
from mlferry.numerics.products import matmul


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(0, 1, shape).astype(np.float32)


def shared_parts(work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """What some work gives, and the numbers of parts that it shared."""
    counts: list[int] = []
    share = lanes.share

    def counted(shared: Sequence[Sequence[lanes.Part]]) -> None:
        counts.append(len(shared[0]))
        share(shared)

    monkeypatch.setattr(lanes, "share", counted)
    return work(), counts


# shapes of both sides, and whether parts are shared
PRODUCTS: dict[str, tuple[np.ndarray, np.ndarray, bool]] = {
    "wide": (normal(16, 700), normal(700, 800), True),
    "tall": (normal(900, 300), normal(300, 33), True),
    "one row": (normal(1, 4000), normal(4000, 3001), True),
    "of a transposed matrix": (normal(64, 600), normal(500, 600).T, True),
    "small": (normal(20, 30), normal(30, 40), False),
    "many matrices": (normal(12, 100, 90), normal(12, 90, 100), True),
    "many matrices, the second axis": (
        normal(1, 100, 12, 90).swapaxes(1, 2),
        normal(1, 100, 12, 90).transpose(0, 2, 3, 1),
        True,
    ),
    "one matrix of rank 4": (normal(1, 1, 200, 300), normal(1, 1, 300, 200), True),
    "rows of rank 3": (normal(3, 50, 300), normal(300, 250), True),
    "rows that do not lie side by side": (
        normal(3, 300, 50).swapaxes(1, 2),
        normal(300, 250),
        False,
    ),
    "one for several": (normal(1, 100, 300), normal(4, 300, 100), False),
    "a row": (normal(3000), normal(3000, 3000), False),
    "a column": (normal(3000, 3000), normal(3000), False),
    "in double precision": (normal(100, 300).astype(np.float64), normal(300, 400), True),
    "no rows": (normal(0, 300), normal(300, 400), False),
    "nothing inside": (normal(3, 0), normal(0, 4), False),
}


# what only the compiled kernels share
SHARED_IF_COMPILED = ("rows that do not lie side by side", "one for several")


@pytest.mark.parametrize(
    "compiled",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(not is_available(), reason="Numba is not installed"),
        ),
    ],
)
@pytest.mark.parametrize("name", PRODUCTS)
def test_matmul(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right, shares = PRODUCTS[name]
    shares |= compiled and name in SHARED_IF_COMPILED
    with using(compiled):
        _check_matmul(left, right, shares, monkeypatch)


def _check_matmul(
    left: np.ndarray, right: np.ndarray, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, counts = shared_parts(lambda: matmul(left, right), monkeypatch)
    exact = np.matmul(left.astype(np.float64), right.astype(np.float64))
    assert result.dtype == np.result_type(left, right)
    np.testing.assert_allclose(result, exact, rtol=1e-4, atol=2e-3)
    assert (counts != []) == shares


def test_matmul_of_extents_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="mismatch"):
        matmul(normal(500, 400), normal(300, 500))


def _packed(rows: np.ndarray, columns: int) -> np.ndarray:
    from mlferry.compiled.products import PackedProduct

    return PackedProduct.of(normal(rows.shape[1], columns), normal(columns))(rows)


_CHANNELS = normal(256)
LARGE: dict[str, Callable[[], np.ndarray]] = {
    "softmax": lambda: functions.softmax_along(normal(3000, 256), -1),
    "gelu": lambda: functions.gelu(normal(700, 999), "EXACT"),
    "normalization": lambda: layer_normalized(normal(3000, 256), _CHANNELS, _CHANNELS, 1e-5),
    "a product, columns": lambda: _packed(normal(130, 400), 333),
    "a product, rows": lambda: _packed(normal(5001, 200), 20),
    "a convolution": lambda: convolve(
        normal(2, 24, 60, 50), normal(40, 24, 3, 3), (1, 2), (1, 1), ((1, 1), (1, 0)), 1
    ),
    "a convolution of volumes": lambda: convolve(
        normal(1, 8, 16, 24, 24), normal(24, 4, 3, 3, 3), (1, 2, 1), (1, 1, 1), ((1, 1),) * 3, 2
    ),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.skipif(not is_available(), reason="Numba is not installed")
def test_any_number_of_threads_gives_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lanes.at_most(1):
        alone = LARGE[name]()
    for number in (2, 3):
        monkeypatch.setattr(lanes, "cores", lambda number=number: number)
        monkeypatch.setattr(lanes, "free_cores", lambda awake, number=number: number - 1)
        monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())
        with monkeypatch.context() as patch:
            together, counts = shared_parts(LARGE[name], patch)
        assert max(counts) > 1
        np.testing.assert_array_equal(together, alone)
    if not name.startswith("a product"):  # which only compiled code has
        with using(False):
            np.testing.assert_allclose(together, LARGE[name](), rtol=1e-4, atol=1e-4)
