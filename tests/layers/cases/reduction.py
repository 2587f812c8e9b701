"""Reductions, over the values that share their other coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.layers.case import Case, classic, exact
from tests.layers.naive import Array, values

X = values(2, 3, 2, 4)
POSITIVE = np.abs(X) + 0.1
Reducer = Callable[[list[float]], float]


def reduced(x: Array, axes: tuple[int, ...], reducer: Reducer) -> Array:
    """With the axes kept."""
    axes = tuple(axis % x.ndim for axis in axes)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    members: dict[tuple[int, ...], list[float]] = {}
    for place in np.ndindex(x.shape):
        key = tuple(0 if axis in axes else i for axis, i in enumerate(place))
        members.setdefault(key, []).append(float(x[place]))
    y = np.zeros(shape)
    for key, numbers in members.items():
        y[key] = reducer(numbers)
    return y


REDUCERS: list[tuple[str, Reducer]] = [
    ("reduceL1", lambda v: sum(map(abs, v))),
    ("reduceL2", lambda v: math.sqrt(sum(a * a for a in v))),
    ("reduceMax", max),
    ("reduceMin", min),
    ("reduceSum", math.fsum),
    ("reduceProd", math.prod),
    ("reduceMean", lambda v: math.fsum(v) / len(v)),
    ("reduceLogSum", lambda v: math.log(math.fsum(v))),
    ("reduceSumSquare", lambda v: sum(a * a for a in v)),
    ("reduceLogSumExp", lambda v: math.log(sum(map(math.exp, v)))),
]
CLASSIC: list[tuple[str, Reducer]] = [
    ("SUM", math.fsum),
    ("AVG", lambda v: math.fsum(v) / len(v)),
    ("PROD", math.prod),
    ("LOGSUM", lambda v: sum(math.log(a + 1e-6) for a in v)),
    ("SUMSQUARE", lambda v: sum(a * a for a in v)),
    ("L1", lambda v: sum(map(abs, v))),
    ("L2", lambda v: math.sqrt(sum(a * a for a in v))),
    ("MAX", max),
    ("MIN", min),
]
AXES: list[tuple[str, tuple[int, ...]]] = [
    ("CHW", (1, 2, 3)), ("HW", (2, 3)), ("C", (1,)), ("H", (2,)), ("W", (3,))
]  # fmt: skip


def first_largest(v: list[float]) -> float:
    return v.index(max(v))


def nd(kind: str, reducer: Reducer) -> list[Case]:
    x = POSITIVE if kind == "reduceLogSum" else X
    rows: list[tuple[dict[str, Any], tuple[int, ...]]] = [
        ({"axes": (1,)}, (1,)),
        ({"axes": (-1, 0)}, (0, 3)),
        ({"axes": (0, 1, 2, 3)}, (0, 1, 2, 3)),
        ({"reduceAll": True, "axes": (1,)}, (0, 1, 2, 3)),
    ]
    result = []
    for params, axes in rows:
        kept = reduced(x, axes, reducer)
        result.append(exact(kind, {**params, "keepDims": True}, [x], kept, tolerance=1e-4))
        squeezed = np.atleast_1d(kept.squeeze(axes))
        result.append(exact(kind, params, [x], squeezed, tolerance=1e-4))
    return result


TIES = np.array([[[[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 0.0, 5.0]]]])

CASES: list[Case] = [
    *(row for kind, reducer in REDUCERS for row in nd(kind, reducer)),
    *(
        row
        for mode, reducer in CLASSIC
        for name, axes in AXES
        for row in classic(
            "reduce",
            {"mode": mode, "axis": name},
            [POSITIVE],
            reduced(POSITIVE, axes, reducer),
            tolerance=1e-4,
        )
    ),
    *(
        row
        for name, axes in AXES[2:]
        for row in classic(
            "reduce", {"mode": "ARGMAX", "axis": name}, [X], reduced(X, axes, first_largest)
        )
    ),
    *classic("reduce", {"mode": "ARGMAX", "axis": "W"}, [TIES], [[[[1], [0]]]]),
    *classic(
        "reduce",
        {"mode": "LOGSUM", "axis": "W", "epsilon": 2},
        [TIES],
        reduced(TIES, (3,), lambda v: sum(math.log(a + 2) for a in v)),
    ),
    exact("reduce", {"axis": "W"}, [[1, 2, 3]], [6]),
    exact("reduce", {"axis": "HW"}, [[[1, 2], [3, 4]]], [[10]]),
]
