"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from tests.layers.case import Case, exact
from tests.layers.naive import values

X = values(2, 3)

CASES: list[Case] = [
    exact("copy", {}, [X], X),
    exact("getShape", {}, [np.zeros((4, 1, 7))], [4, 1, 7]),
    exact("fillLike", {"value": 3}, [X], [[3, 3, 3], [3, 3, 3]]),
    exact("fillStatic", {"value": -1.5, "targetShape": (2, 1)}, [], [[-1.5], [-1.5]]),
    exact("fillStatic", {"targetShape": (2,)}, [], [0, 0]),
    exact("fillDynamic", {"value": 2}, [[1, 3]], [[2, 2, 2]]),
    exact("broadcastToLike", {}, [[[1], [2]], X], [[1, 1, 1], [2, 2, 2]]),
    exact("broadcastToStatic", {"targetShape": (2, 2, 3)}, [X], [X, X]),
    exact("broadcastToDynamic", {}, [[7], [2, 2]], [[7, 7], [7, 7]]),
    exact("rangeStatic", {"endValue": 3}, [[7]], [0, 1, 2]),  # an input that nothing reads
    exact("rangeStatic", {"endValue": 5}, [], [0, 1, 2, 3, 4]),
    exact(
        "rangeStatic",
        {"startValue": 1, "endValue": 2, "stepSizeValue": 0.25},
        [],
        [1, 1.25, 1.5, 1.75],
    ),
    exact("rangeStatic", {"startValue": 3, "endValue": -2, "stepSizeValue": -2}, [], [3, 1, -1]),
    exact("rangeStatic", {"endValue": 0.6, "stepSizeValue": 0.2}, [], [0, 0.2, 0.4]),
    exact("rangeDynamic", {"startValue": 1, "stepSizeValue": 2}, [[6]], [1, 3, 5]),
    exact("rangeDynamic", {"startValue": 9, "stepSizeValue": 2}, [[6], [2]], [2, 4]),
    exact("rangeDynamic", {"startValue": 9, "stepSizeValue": 9}, [[1], [4], [-1]], [4, 3, 2]),
]
