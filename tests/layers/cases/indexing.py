"""Gather, scatter, sorting and selecting, index by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.layers.case import Case, exact
from tests.layers.naive import Array, values

X = values(3, 4, 5)
UPDATERS: dict[str, Callable[[float, float], float]] = {
    "SCATTER_UPDATE": lambda old, new: new,
    "SCATTER_ADD": lambda old, new: old + new,
    "SCATTER_SUB": lambda old, new: old - new,
    "SCATTER_MUL": lambda old, new: old * new,
    "SCATTER_DIV": lambda old, new: old / new,
    "SCATTER_MAX": max,
    "SCATTER_MIN": min,
}


def gathered(x: Array, axis: int, indices: Array) -> Array:
    axis %= x.ndim
    rank = indices.ndim
    y = np.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))
    for place in np.ndindex(y.shape):
        index = int(indices[place[axis : axis + rank]])
        y[place] = x[(*place[:axis], index, *place[axis + rank :])]
    return y


def scattered(x: Array, axis: int, indices: Array, updates: Array, mode: str) -> Array:
    axis %= x.ndim
    rank = indices.ndim
    y = x.astype(float)
    for place in np.ndindex(updates.shape):
        index = int(indices[place[axis : axis + rank]])
        target = (*place[:axis], index, *place[axis + rank :])
        y[target] = UPDATERS[mode](float(y[target]), float(updates[place]))
    return y


def gathered_nd(x: Array, indices: Array) -> Array:
    depth = indices.shape[-1]
    y = np.zeros((*indices.shape[:-1], *x.shape[depth:]))
    for place in np.ndindex(indices.shape[:-1]):
        y[place] = x[tuple(int(i) for i in indices[place])]
    return y


def scattered_nd(x: Array, indices: Array, updates: Array, mode: str) -> Array:
    depth = indices.shape[-1]
    y = x.astype(float)
    for place in np.ndindex(indices.shape[:-1]):
        point = tuple(int(i) for i in indices[place])
        for inner in np.ndindex(x.shape[depth:]):
            target = (*point, *inner)
            y[target] = UPDATERS[mode](float(y[target]), float(updates[(*place, *inner)]))
    return y


def along(indices: Array, axis: int, place: tuple[int, ...]) -> tuple[int, ...]:
    target = list(place)
    target[axis] = int(indices[place])
    return tuple(target)


def scatter_rows() -> list[Case]:
    one, square = np.array([1, -1, 1]), np.array([[0, 3], [2, 2]])
    points = np.array([[0, 1], [2, -1], [0, 1]])
    rng = np.random.default_rng(5)
    result = []
    for mode, update in UPDATERS.items():
        u = values(3, 3, 5, seed=1) + 3
        y = scattered(X, 1, one, u, mode)
        result.append(exact("scatter", {"axis": 1, "mode": mode}, [X, one, u], y, tolerance=1e-4))
        u = values(3, 2, 2, 5, seed=2) + 3
        y = scattered(X, -2, square, u, mode)
        result.append(
            exact("scatter", {"axis": -2, "mode": mode}, [X, square, u], y, tolerance=1e-4)
        )
        u = values(3, 5, seed=3) + 3
        y = scattered_nd(X, points, u, mode)
        result.append(exact("scatterND", {"mode": mode}, [X, points, u], y, tolerance=1e-4))
        where, u = rng.integers(-4, 4, (3, 6, 5)), values(3, 6, 5, seed=4) + 3
        y = X.astype(float)
        for place in np.ndindex(where.shape):
            target = along(where, 1, place)
            y[target] = update(float(y[target]), float(u[place]))
        params = {"axis": 1, "mode": mode}
        result.append(exact("scatterAlongAxis", params, [X, where, u], y, tolerance=1e-4))
    full, scalars = np.array([[[0, 1, 2]], [[2, 3, -1]]]), values(2, 1, seed=6)
    result.append(
        exact("scatterND", {}, [X, full, scalars], scattered_nd(X, full, scalars, "SCATTER_UPDATE"))
    )
    line = np.array([1.0, 2, 3])
    result.append(exact("scatter", {}, [line, [2, 0], [7, 8]], [8, 2, 7]))
    return result


def gather_rows() -> list[Case]:
    result = []
    for axis in (0, 1, -1):
        for indices in (np.array([1, 0, -1]), np.array([[0, 2], [1, -2], [0, 0]])):
            y = gathered(X, axis, indices)
            result.append(exact("gather", {"axis": axis}, [X, indices], y))
    result.append(exact("gather", {"axis": 0}, [[5, 6, 7], [2]], [7]))
    for points in (
        np.array([[0], [2]]),
        np.array([[0, 1], [2, -1], [0, 3]]),
        np.array([[[0, 1, 2], [1, 1, 1]]]),
    ):
        result.append(exact("gatherND", {}, [X, points], gathered_nd(X, points)))
    result.append(exact("gatherND", {}, [X, [1, 2, 3]], [X[1, 2, 3]]))
    rng = np.random.default_rng(6)
    for axis in (0, 1, -1):
        shape = list(X.shape)
        shape[axis] = 6
        where = rng.integers(-3, 3, shape)
        y = np.zeros(shape)
        for place in np.ndindex(where.shape):
            y[place] = X[along(where, axis, place)]
        result.append(exact("gatherAlongAxis", {"axis": axis}, [X, where], y))
    return result


TIES = [[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, -1.0, 0.0]]
M = np.arange(1.0, 13.0).reshape(3, 4)
Band = Callable[[int, int], bool]


def banded(x: Array, keep: Band) -> Array:
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        y[place] = x[place] if keep(place[-2], place[-1]) else 0
    return y


SEQUENCE = np.arange(12.0).reshape(2, 3, 2)
SORTED: list[tuple[dict[str, Any], Any, Any]] = [
    ({"axis": 1, "K": 2}, [[3, 3], [0, 0]], [[0, 2], [0, 1]]),
    ({"axis": -1, "K": 3, "useBottomK": True}, [[1, 2, 3], [-1, 0, 0]], [[1, 3, 0], [2, 0, 1]]),
    ({"axis": 0, "K": 1}, [[3, 1, 3, 2]], [[0, 0, 0, 0]]),
]

CASES: list[Case] = [
    *gather_rows(),
    *scatter_rows(),
    exact("whereNonZero", {}, [[0, 1, 0, 2]], [[1], [3]]),
    exact(
        "whereNonZero",
        {},
        [[[1, 2, 1], [0, 2, -2], [2, 1, 0]]],
        [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 0], [2, 1]],
    ),
    exact("whereNonZero", {}, [[0.0, 0.0]], np.zeros((0, 1))),
    exact(
        "whereBroadcastable",
        {},
        [[[1], [0]], [5, 6, 7], [[[8]], [[9]]]],
        [[[5, 6, 7], [8, 8, 8]], [[5, 6, 7], [9, 9, 9]]],
    ),
    exact(
        "oneHot",
        {"oneHotVectorSize": 4, "axis": -1, "onValue": 5, "offValue": -1},
        [[2, 0]],
        [[-1, -1, 5, -1], [5, -1, -1, -1]],
    ),
    exact(
        "oneHot",
        {"oneHotVectorSize": 4, "axis": -1, "onValue": 5, "offValue": -1},
        [[2, -1]],
        [[-1, -1, 5, -1], [-1, -1, -1, -1]],
    ),
    exact(
        "oneHot",
        {"oneHotVectorSize": 3, "axis": 0, "onValue": 1},
        [[2, 0, 3]],
        [[0, 1, 0], [0, 0, 0], [1, 0, 0]],
    ),
    exact(
        "oneHot",
        {"oneHotVectorSize": 9, "axis": 1, "onValue": 1},
        [[[0, 1]], [2]],
        [[[1, 0], [0, 1]]],
    ),
    *(exact("topK", params, [TIES], top, where) for params, top, where in SORTED),
    exact("topK", {"axis": 1, "K": 4}, [TIES, [1]], [[3], [0]], [[0], [0]]),
    exact("argSort", {"axis": 0}, [[3.1, 5.4, 32.9, 3.2, 77.0]], [0, 3, 1, 2, 4]),
    exact(
        "argSort", {"axis": 0, "descending": True}, [[3.1, 5.4, 32.9, 3.2, 77.0]], [4, 2, 1, 3, 0]
    ),
    exact("argSort", {"axis": 1}, [TIES], [[1, 3, 0, 2], [2, 0, 1, 3]]),
    exact("argSort", {"axis": 1, "descending": True}, [TIES], [[0, 2, 3, 1], [0, 1, 3, 2]]),
    exact("argMax", {"axis": 1}, [TIES], [[0], [0]]),
    exact("argMax", {"axis": -2, "removeDim": True}, [TIES], [0, 0, 0, 0]),
    exact("argMin", {"axis": 1, "removeDim": True}, [TIES], [1, 2]),
    exact("argMin", {"axis": 0}, [TIES], [[1, 1, 1, 1]]),
    exact("argMax", {"axis": 0}, [[1, 5, 2]], [1]),
    exact("argMin", {"axis": 0, "removeDim": True}, [[1, 5, 2]], [0]),
    exact("cumSum", {"axis": 0}, [[4, 6, 7]], [4, 10, 17]),
    exact("cumSum", {"axis": 0, "excludeFinalSum": True}, [[4, 6, 7]], [0, 4, 10]),
    exact("cumSum", {"axis": 0, "reverse": True}, [[4, 6, 7]], [17, 13, 7]),
    exact("cumSum", {"axis": 0, "reverse": True, "excludeFinalSum": True}, [[4, 6, 7]], [13, 7, 0]),
    exact("cumSum", {"axis": 0}, [[[1, 2], [3, 4]], [-1]], [[1, 3], [3, 7]]),
    exact("cumSum", {"axis": 0}, [[[1, 2], [3, 4]]], [[1, 2], [4, 6]]),
    exact("reverse", {"reverseDim": (True, False)}, [[[1, 2], [3, 4]]], [[3, 4], [1, 2]]),
    exact("reverse", {"reverseDim": (True, True)}, [[[1, 2], [3, 4]]], [[4, 3], [2, 1]]),
    exact(
        "reverseSeq",
        {"batchAxis": 0, "sequenceAxis": 1},
        [[[0, 1, 2, 3], [4, 5, 6, 7]], [3, 0]],
        [[2, 1, 0, 3], [4, 5, 6, 7]],
    ),
    exact(
        "reverseSeq",
        {"batchAxis": 0, "sequenceAxis": -2},
        [SEQUENCE, [2, 3]],
        [[[2, 3], [0, 1], [4, 5]], [[10, 11], [8, 9], [6, 7]]],
    ),
    exact(
        "reverseSeq",
        {"batchAxis": 0, "sequenceAxis": 2},
        [SEQUENCE, [2, 1]],
        [[[1, 0], [3, 2], [5, 4]], [[6, 7], [8, 9], [10, 11]]],
    ),
    *(
        exact(
            "matrixBandPart",
            {"numLower": low, "numUpper": high},
            [np.stack([M, -M])],
            banded(
                np.stack([M, -M]),
                lambda m, n, low=low, high=high: (
                    (low < 0 or m - n <= low) and (high < 0 or n - m <= high)
                ),
            ),
        )
        for low, high in ((0, 0), (1, 2), (-1, 0), (0, -1), (-1, -1), (2, 1))
    ),
    *(
        row
        for k in (-2, -1, 0, 1, 2)
        for row in (
            exact("lowerTriangular", {"k": k}, [M], banded(M, lambda m, n, k=k: n - m <= k)),
            exact("upperTriangular", {"k": k}, [M], banded(M, lambda m, n, k=k: n - m >= k)),
        )
    ),
]
