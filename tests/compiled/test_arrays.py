"""Steps of tables on arrays: each against NumPy, however the arrays lie and are cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry import lanes
from mlferry.compiled import arithmetic, arrays, functions, vectors
from mlferry.compiled.arrays import ArrayTask, Ends
from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.tasks import Table
from mlferry.errors import PredictionError

L = vectors.LANES
Array = np.ndarray


@pytest.fixture(params=[1, 4], ids=["one core", "four cores"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """On several cores, work is cut into more tasks, here also what is small."""
    monkeypatch.setattr(lanes, "cores", lambda: request.param)
    monkeypatch.setattr("mlferry.compiled.tasks._LEAST", 1)
    return int(request.param)


def normal(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def run(step: Sequence[ArrayTask]) -> None:
    Table([step])()


def in_columns(*shape: int) -> Array:
    """Values whose last axis lies apart."""
    return np.ascontiguousarray(normal(*shape).T).T


def among_others(*shape: int) -> Array:
    """Rows that lie in longer ones."""
    return normal(*shape[:-1], shape[-1] + 3)[..., : shape[-1]]


def backwards(*shape: int) -> Array:
    return np.flip(normal(*shape))


def repeated(*shape: int) -> Array:
    return np.broadcast_to(normal(*shape[:-1], 1), shape)


LAYOUTS: dict[str, Callable[..., Array]] = {
    "whole": normal, "in columns": in_columns, "among others": among_others,
    "backwards": backwards, "repeated": repeated,
}  # fmt: skip


SIZES = [
    (1, 1, 1), (1, 5, L), (3, 4, 2 * L), (7, 9, 2 * L + 3), (40, 8, 5 * L),
    (13, 2, 6 * L + 1), (123, 900, 3 * L + 3), (123, 900, 130),
]  # fmt: skip
ENDS: dict[str, dict[str, Any]] = {
    "alone": {},
    "plus addends": {"addends": True},
    "limited": {"least": np.float32(-0.5), "most": np.float32(0.75)},
    "rounded": {"rounds": True},
    "all": {"addends": True, "least": np.float32(-0.5), "most": np.float32(1), "rounds": True},
}


@pytest.mark.parametrize("ends", list(ENDS))
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.usefixtures("cores")
def test_product(size: tuple[int, int, int], ends: str) -> None:
    count, inner, columns = size
    x, bias = among_others(count, inner), normal(columns, seed=5)
    matrix = normal(inner, columns) / np.float32(math.sqrt(inner))
    given = dict(ENDS[ends])
    added = normal(count, columns, seed=6) if given.pop("addends", False) else None
    y = np.full((count, columns + 2), np.nan, np.float32)
    packed = PackedMatrix.of(matrix)
    what = Ends(addends=added, **given)
    run(arrays.product(x, packed, packed.padded(bias), y[:, :columns], what))

    def rounded(values: Array) -> Array:
        return values.astype(np.float16).astype(np.float64) if what.rounds else values

    right = rounded(x.astype(np.float64) @ matrix + bias)
    right = rounded(right if added is None else right + added)
    right = rounded(np.clip(right, what.least, what.most))
    np.testing.assert_allclose(y[:, :columns], right, rtol=0, atol=3e-3 if what.rounds else 1e-5)
    assert np.isnan(y[:, columns:]).all()


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (6, L), (4, 2 * L), (9, 7 * L + 5)], ids=str)
@pytest.mark.usefixtures("cores")
def test_packed(size: tuple[int, int], layout: str) -> None:
    matrix = LAYOUTS[layout](*size)
    right = PackedMatrix.of(matrix)
    packed = PackedMatrix.empty(*size)
    run(arrays.packed(matrix, packed))
    np.testing.assert_array_equal(packed.values, right.values)


@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("columns", [1, 3, L, L + 1, 4 * L, 5 * L, 9 * L + 7])
@pytest.mark.usefixtures("cores")
def test_normalized(rows: int, columns: int) -> None:
    x = among_others(rows, columns) * 3 + 5
    x = np.lib.stride_tricks.as_strided(x, x.shape, x.strides)
    gamma, beta = normal(columns, seed=8), normal(columns, seed=9)
    y = np.full((rows, columns + 1), np.nan, np.float32)
    run(arrays.normalized(x, gamma, beta, 1e-3, y[:, :columns]))
    wide = x.astype(np.float64)
    centered = wide - wide.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.square(centered).mean(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(y[:, :columns], centered / scale * gamma + beta, atol=2e-5)
    assert np.isnan(y[:, columns:]).all()


@pytest.mark.parametrize("rows", [1, 6, 40])
@pytest.mark.parametrize("columns", [1, 3, L, L + 1, 5 * L + 2])
@pytest.mark.usefixtures("cores")
def test_softmax(rows: int, columns: int) -> None:
    x = among_others(rows, columns) * 20
    y = np.full((rows, columns + 1), np.nan, np.float32)
    run(arrays.softmax(x, y[:, :columns]))
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        y[:, :columns], powers / powers.sum(axis=1, keepdims=True), atol=1e-6
    )
    assert np.isnan(y[:, columns:]).all()


APPLIED: dict[str, Callable[[Array], Array]] = {
    "erf": np.vectorize(math.erf),
    "exp": np.exp,
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "half": lambda x: x.astype(np.float16).astype(np.float64),
    "identity": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def test_every_function_has_a_row() -> None:
    assert APPLIED.keys() == functions.PLACES.keys()
    assert COMBINED.keys() == arithmetic.PLACES.keys()


@pytest.mark.parametrize("size", [1, L - 1, L, 10 * L + 3])
@pytest.mark.parametrize("name", list(APPLIED))
@pytest.mark.usefixtures("cores")
def test_applied(name: str, size: int) -> None:
    x = normal(size) * 3
    for least, most in ((-np.inf, np.inf), (0.0, np.inf), (-0.25, 0.5)):
        y = np.empty_like(x)
        run(arrays.applied(name, x, y, np.float32(least), np.float32(most)))
        right = np.clip(APPLIED[name](x.astype(np.float64)), least, most)
        np.testing.assert_allclose(y, right, rtol=2e-6, atol=5e-7)


COMBINED: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide,
    "maximum": np.maximum, "minimum": np.minimum, "equal": np.equal, "not_equal": np.not_equal,
    "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal,
}  # fmt: skip
COMPARISONS = [name for name in COMBINED if name.endswith(("equal", "less", "greater"))]
SHAPES = [(1,), (L + 3,), (1, 1, 5), (3, 2 * L), (2, 3, 4, 5), (5, 1, 3, L + 1), (2, 2, 2, 2, 2, 3)]


@pytest.mark.parametrize("axes", ["none", "first", "last", "all", "every other"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", list(COMBINED))
@pytest.mark.usefixtures("cores")
def test_combined(name: str, shape: tuple[int, ...], axes: str) -> None:
    single = {
        "none": (), "first": (0,), "last": (-1,), "all": range(len(shape)),
        "every other": range(0, len(shape), 2),
    }[axes]  # fmt: skip
    narrow = list(shape)
    for axis in single:
        narrow[axis] = 1
    one, other = normal(*shape), np.broadcast_to(normal(*narrow, seed=4), shape)
    if name in COMPARISONS:
        one, other = one.round(), other.round()  # some are the same
    for x, z in ((one, other), (other, one), (among_others(*shape), other)):
        y = np.empty(shape, np.float32)
        run(arrays.combined(name, x, z, y, Ends()))
        np.testing.assert_array_equal(y, COMBINED[name](x, z))
        run(arrays.combined(name, x, z, y, Ends(rounds=True, most=np.float32(0.5))))
        right = COMBINED[name](x, z).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(y, np.minimum(right, 0.5))


def test_what_is_no_number_stays() -> None:
    x = np.array([np.nan, 1, np.nan, -np.inf, np.inf] * L, np.float32)
    z = np.array([1, np.nan, np.nan, 3, np.inf] * L, np.float32)
    for name in ("maximum", "minimum", "add", *COMPARISONS):
        y = np.empty_like(x)
        run(arrays.combined(name, x, z, y, Ends(least=np.float32(-9), most=np.float32(9))))
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(y, np.clip(COMBINED[name](x, z), -9, 9))


@pytest.mark.parametrize("count", [1, 5, 400])
@pytest.mark.parametrize("columns", [1, L + 3, 300])
@pytest.mark.usefixtures("cores")
def test_gathered(columns: int, count: int) -> None:
    x, wrong = among_others(9, columns), np.zeros(1, np.int64)
    indices = np.random.default_rng(3).uniform(-9.9, 8.9, count).astype(np.float32)
    y = np.full((count, columns + 1), np.nan, np.float32)
    run(arrays.gathered(x, indices, y[:, :columns], wrong))
    np.testing.assert_array_equal(y[:, :columns], x[np.trunc(indices).astype(int)])
    assert np.isnan(y[:, columns:]).all()
    assert not wrong[0]


@pytest.mark.parametrize("index", [9, -10, np.nan, np.inf, -np.inf, 2.0**31, 2.0**32, -(2.0**63)])
def test_an_index_that_names_no_row(index: float) -> None:
    x, wrong = normal(9, 5), np.zeros(1, np.int64)
    indices = np.array([1, index, 2], np.float32)
    y = np.full((3, 5), 7, np.float32)
    run(arrays.gathered(x, indices, y, wrong))
    np.testing.assert_array_equal(y, [x[1], np.full(5, 7), x[2]])
    assert wrong[0] == 1


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("shape", [*SHAPES, (4, 3, 2 * L, 5)], ids=str)
@pytest.mark.usefixtures("cores")
def test_moved(shape: tuple[int, ...], layout: str) -> None:
    x = LAYOUTS[layout](*shape)
    orders = list(itertools.permutations(range(len(shape))))
    for order in orders[:: max(1, len(orders) // 20)]:
        source = x.transpose(order)
        y = np.full((*source.shape[:-1], source.shape[-1] + 1), np.nan, np.float32)
        run(arrays.moved(source, y[..., :-1]))
        np.testing.assert_array_equal(y[..., :-1], source)
        assert np.isnan(y[..., -1]).all()


def test_the_result_may_lie_apart_where_it_has_one_value_a_row() -> None:
    y = np.zeros((4, 3, 2), np.float32)
    x = normal(4, 3)
    run(arrays.moved(x, y[..., 1]))
    np.testing.assert_array_equal(y[..., 1], x)
    assert not y[..., 0].any()


def flat(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


REFUSED: dict[str, Callable[[], object]] = {
    "a product of other rows": lambda: arrays.product(
        flat(2, 3), PackedMatrix.empty(4, 5), flat(L), flat(2, 5), Ends()
    ),
    "a product into fewer rows": lambda: arrays.product(
        flat(3, 4), PackedMatrix.empty(4, 5), flat(L), flat(2, 5), Ends()
    ),
    "addends of another shape": lambda: arrays.product(
        flat(2, 4), PackedMatrix.empty(4, 5), flat(L), flat(2, 5), Ends(addends=flat(1, 5))
    ),
    "rows that lie apart": lambda: arrays.softmax(flat(4, 2).T, flat(2, 4)),
    "a softmax of another shape": lambda: arrays.softmax(flat(2, 4), flat(2, 5)),
    "factors of another length": lambda: arrays.normalized(
        flat(2, 4), flat(3), flat(4), 0.1, flat(2, 4)
    ),
    "a function into another shape": lambda: arrays.applied("exp", flat(2, 4), flat(4, 2)),
    "a function of what lies apart": lambda: arrays.applied("exp", flat(4, 2).T, flat(2, 4)),
    "fewer rows than indices": lambda: arrays.gathered(
        normal(4, 5), normal(3), normal(2, 5), np.zeros(1, np.int64)
    ),
    "a sum of what lies apart": lambda: arrays.combined(
        "add", flat(4, 2).T, flat(2, 4), flat(2, 4), Ends()
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    """Compiled code would read or write beyond its arrays."""
    with pytest.raises(PredictionError):
        REFUSED[name]()
