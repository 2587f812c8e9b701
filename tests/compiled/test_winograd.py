"""Convolutions in Winograd's tiles beside naive loops in double precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry import lanes
from mlferry.compiled import transforms, vectors
from mlferry.compiled.winograd import PackedTiles, number_for, side_for
from mlferry.errors import PredictionError
from mlferry.runtime.planned import compiled_winograd
from mlferry.runtime.planned.finish import Combination, Finish, Rounding
from tests.compiled.references import finishes, normal

LANES = vectors.LANES


@dataclass(frozen=True)
class Case:
    """A convolution whose maps are larger than needed, as plans have them."""

    result: tuple[int, int] = (9, 14)
    channels: int = LANES
    count: int = 2 * LANES
    side: int = 4
    apart: int = 0  # channels of other maps between the pixels of input and result

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """The input, with a border that reaches to whole tiles, and room for the result."""
        extent = [-(-n // self.side) * self.side + 2 for n in self.result]
        x = normal(*extent, self.channels + self.apart)[..., : self.channels]
        height, width = self.result
        y = np.full((height + 1, width + 1, self.count + self.apart), np.nan, np.float32)
        return x, y[:height, :width, : self.count]

    def weights(self) -> np.ndarray:
        return normal(self.count, self.channels, 3, 3, seed=3)

    def convolved(self, x: np.ndarray) -> np.ndarray:
        """By the definition, [H, W, M]."""
        height, width = self.result
        total = np.zeros((height, width, self.count))
        kernels = self.weights().astype(np.float64)
        for i, j in np.ndindex(3, 3):
            total += x[i : i + height, j : j + width].astype(np.float64) @ kernels[:, :, i, j].T
        return total


def run(case: Case, finish: Finish, x: np.ndarray, y: np.ndarray) -> None:
    packed = PackedTiles.of(case.weights(), case.side)
    compiled_winograd.convolved(x, packed, y, finish)()


CASES = {
    "whole tiles": Case((8, 16)),
    "edges": Case(),
    "one tile": Case((4, 4)),
    "one result": Case((1, 1)),
    "narrow": Case((13, 1)),
    "low": Case((2, 23)),
    "apart": Case(apart=3),
    "one group of channels and a part": Case(count=64 + LANES),
    "several groups": Case((6, 6), channels=3 * LANES, count=256),
    "more tiles than are transformed at a time": Case((61, 70), channels=4 * LANES, count=LANES),
    "many channels": Case((7, 7), channels=512, count=128),
    "weights that no near cache holds": Case((30, 27), channels=512, count=192),
}


def check(case: Case, steps: tuple[str, ...] = ()) -> None:
    x, y = case.maps()
    outside = y.base[-1].copy(), y.base[:, -1].copy()
    finish, finished = finishes(y, steps)
    run(case, finish, x, y)
    right = case.convolved(x)
    rounding = any(isinstance(step, Rounding) for step in finish.steps)
    error = np.abs(y - finished(right)).max()
    assert error <= (1e-3 if rounding else 5e-6) * max(np.ptp(right), 1.0)
    np.testing.assert_array_equal(y.base[-1], outside[0])  # what lies beyond stays as it was
    np.testing.assert_array_equal(y.base[:, -1], outside[1])
    np.testing.assert_array_equal(y.base[..., case.count :], np.nan)


@pytest.mark.parametrize("side", transforms.TILES)
@pytest.mark.parametrize("name", CASES)
def test_convolution(name: str, side: int) -> None:
    case = CASES[name]
    check(replace(case, side=side))


STEPS = [
    ("relu",),
    ("add",),
    ("add", "clip"),
    ("round",),
    ("round", "add", "round", "relu"),
    ("double", "add"),
    ("subtract",),
    ("relu", "add", "tanh", "round"),
    ("affine", "clip"),
]


@pytest.mark.parametrize("side", transforms.TILES)
@pytest.mark.parametrize("steps", STEPS, ids=" ".join)
@pytest.mark.parametrize("result", [(9, 14), (40, 31)])
def test_what_follows(result: tuple[int, int], steps: tuple[str, ...], side: int) -> None:
    """In the kernel itself, or what it does not know, by NumPy behind it."""
    check(Case(result, LANES, 64 + LANES, side), steps)


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_on_any_number_of_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the result is cut into tasks."""
    case, results = CASES[name], []
    for cores in (1, 2, 3, 8):
        monkeypatch.setattr(lanes, "cores", lambda cores=cores: cores)
        x, y = case.maps()
        run(case, Finish(steps=[Combination(np.add, np.ones_like(y), False)]), x, y)
        results.append(y.copy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("side", transforms.TILES)
def test_transforms_are_exact(side: int) -> None:
    """In fractions, they give the definition of a convolution along an axis."""
    before, kernel, behind = transforms._ALL[side]
    x = [Fraction(n) for n in (3, -1, 4, 1, -5, 9)[: side + 2]]
    weights = [Fraction(2), Fraction(-7), Fraction(1, 3)]

    def times(matrix: list[list[Fraction]], values: list[Fraction]) -> list[Fraction]:
        return [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]

    products = [a * b for a, b in zip(times(before, x), times(kernel, weights), strict=True)]
    right = [sum(x[i + k] * weights[k] for k in range(3)) for i in range(side)]
    assert times(behind, products) == right
    assert all(1 in row for row in before)


@pytest.mark.parametrize("channels", [2 * LANES, 8 * LANES])
@pytest.mark.parametrize(("side", "most"), [(2, 2.0), (4, 3.0)])
def test_errors_are_about_twice_those_of_a_plain_sum(channels: int, side: int, most: float) -> None:
    """Of a sum that adds one product after the other; `docs/speed.md` promises it."""
    case = Case((24, 24), channels, 2 * LANES, side)
    x, y = case.maps()
    run(case, Finish(), x, y)
    plain = np.zeros(y.shape, np.float32)
    for i, j, c in np.ndindex(3, 3, channels):
        plain += x[i : i + 24, j : j + 24, c, None] * case.weights()[:, c, i, j]
    right = case.convolved(x)
    errors = [np.sqrt(np.mean((result - right) ** 2)) for result in (y, plain)]
    assert errors[0] < most * errors[1]


def test_other_points_round_more() -> None:
    """Those of which tiles of four are commonly made; along one axis, in float32."""
    x, weights = normal(4000, 6, 64), normal(3, 64)
    right = np.stack([(x[:, k : k + 3] * weights.astype(np.float64)).sum((1, 2)) for k in range(4)])
    errors = []
    for points in (transforms._POINTS[4], (0, 1, -1, 2, -2)):
        fractions = transforms.transforms_at([Fraction(point) for point in points])
        before, kernel, behind = (np.array(matrix, np.float64) for matrix in fractions)
        spread = np.einsum("ij,njc->inc", before.astype(np.float32), x)
        kernels = (kernel @ weights).astype(np.float32)
        products = np.zeros((6, len(x)), np.float32)
        for c in range(64):
            products += spread[..., c] * kernels[:, None, c]
        errors.append(np.std(behind.astype(np.float32) @ products - right))
    assert errors[1] > 1.2 * errors[0], errors


def test_what_is_no_number_spreads_over_its_tiles() -> None:
    """And no further: other tiles are right."""
    case = Case((16, 16))
    x, y = case.maps()
    right = case.convolved(x)
    x[9, 6, 3] = np.inf  # of the results in rows 7 to 9 and columns 4 to 6
    run(case, Finish(), x, y)
    touched = np.zeros((16, 16), bool)
    touched[4:12, 4:8] = True
    assert not np.isfinite(y[7:10, 4:7]).any()
    assert np.abs(y - right)[~touched].max() < 5e-6 * np.ptp(right)


@pytest.mark.parametrize(
    ("extent", "channels", "count", "message"),
    [
        ((9, 10), LANES, LANES, r"tiles of 4 for \(8, 8, .*\) reach beyond"),
        ((10, 9), LANES, LANES, "reach beyond"),
        ((10, 10), 2 * LANES, LANES, "its weights are for"),
        ((10, 10), LANES, 2 * LANES, "its weights are for"),
    ],
)
def test_other_maps_are_refused(
    extent: tuple[int, int], channels: int, count: int, message: str
) -> None:
    packed = PackedTiles.of(normal(LANES, LANES, 3, 3), 4)
    y = np.empty((8, 8, count), np.float32)
    with pytest.raises(PredictionError, match=message):
        compiled_winograd.convolved(normal(*extent, channels), packed, y, Finish())


def test_channels_that_lie_apart_are_refused() -> None:
    packed = PackedTiles.of(normal(LANES, LANES, 3, 3), 4)
    y = np.empty((8, 8, LANES), np.float32)
    with pytest.raises(PredictionError, match="side by side"):
        compiled_winograd.convolved(normal(10, 10, 2 * LANES)[..., ::2], packed, y, Finish())


@pytest.mark.parametrize(
    ("size", "channels", "count", "sides"),
    [
        ((64, 64), 128, 128, {4}),
        ((28, 28), 128, 128, {4}),
        ((14, 14), 256, 256, {4}),
        # reading 36 matrices of weights takes longer, beside sums of wide vectors
        ((7, 7), 512, 512, {2} if LANES == 16 else {2, 4}),
        ((1, 1), 128, 128, {0}),
        ((3, 3), 128, 128, {0}),
        ((64, 64), LANES + 1, 128, {0}),  # no whole vectors of channels
        ((64, 64), 128, LANES + 1, {0}),
        ((64, 64), 1 << 15, 128, {0}),  # no room for a few tiles
    ],
)
def test_when_tiles_are_used(
    size: tuple[int, int], channels: int, count: int, sides: set[int]
) -> None:
    assert side_for(*size, channels, count) in sides


@pytest.mark.parametrize("side", transforms.TILES)
@pytest.mark.parametrize("channels", [LANES, 128, 512, 2048])
@pytest.mark.parametrize("tiles", [1, 5, 49, 1000])
@pytest.mark.parametrize("columns", [LANES, 512])
def test_tiles_fit_the_scratch(columns: int, tiles: int, channels: int, side: int) -> None:
    """What they are transformed to, and the products, with a vector between matrices."""
    number = number_for(tiles, side, channels, columns)
    assert 0 < number <= tiles
    group = max(LANES, 64)
    taken = (side + 2) ** 2 * 4 * (number * (channels + group) + 2 * LANES)
    assert taken + 4 * 2 * group <= vectors.scratch().nbytes
