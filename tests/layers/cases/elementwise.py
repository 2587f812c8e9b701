"""Activations, functions, arithmetic and comparisons, against `math`, value by value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.layers.case import Case, classic, exact
from tests.layers.naive import Array, values

X = np.array([-3.0, -1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 2.5, 4.0, 30.0, -30.0])


def each(function: Callable[[float], float], x: Array) -> Array:
    return np.array([function(float(v)) for v in x.reshape(-1)]).reshape(x.shape)


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def softplus(v: float) -> float:
    return v if v > 25 else math.log(1 + math.exp(v))


ACTIVATIONS: list[tuple[dict[str, Any], Callable[[float], float]]] = [
    ({"linear": {"alpha": 2, "beta": -1}}, lambda v: 2 * v - 1),
    ({"ReLU": {}}, lambda v: max(v, 0)),
    ({"leakyReLU": {"alpha": 0.3}}, lambda v: v if v >= 0 else 0.3 * v),
    ({"thresholdedReLU": {"alpha": 0.5}}, lambda v: v if v >= 0.5 else 0),
    ({"PReLU": {"alpha": np.array([0.1])}}, lambda v: v if v >= 0 else 0.1 * v),
    ({"tanh": {}}, math.tanh),
    ({"scaledTanh": {"alpha": 1.7, "beta": 0.5}}, lambda v: 1.7 * math.tanh(0.5 * v)),
    ({"sigmoid": {}}, sigmoid),
    ({"sigmoidHard": {"alpha": 0.2, "beta": 0.5}}, lambda v: min(max(0.2 * v + 0.5, 0), 1)),
    ({"ELU": {"alpha": 1.5}}, lambda v: v if v >= 0 else 1.5 * (math.exp(v) - 1)),
    ({"softsign": {}}, lambda v: v / (1 + abs(v))),
    ({"softplus": {}}, softplus),
    (
        {"parametricSoftplus": {"alpha": np.array([2.0]), "beta": np.array([0.5])}},
        lambda v: 2 * softplus(0.5 * v),
    ),
]
UNARY: list[tuple[dict[str, Any], Callable[[float], float]]] = [
    ({"type": "SQRT"}, math.sqrt),
    ({"type": "RSQRT"}, lambda v: 1 / math.sqrt(v + 1e-6)),
    ({"type": "RSQRT", "epsilon": 0.5}, lambda v: 1 / math.sqrt(v + 0.5)),
    ({"type": "INVERSE"}, lambda v: 1 / (v + 1e-6)),
    ({"type": "INVERSE", "epsilon": 0.1}, lambda v: 1 / (v + 0.1)),
    ({"type": "POWER", "alpha": 1.5}, lambda v: v**1.5),
    ({"type": "POWER", "alpha": 2, "scale": -2, "shift": 1}, lambda v: (1 - 2 * v) ** 2),
    ({"type": "EXP"}, math.exp),
    ({"type": "LOG", "shift": 1}, lambda v: math.log(v + 1)),
    ({"type": "ABS", "scale": -1}, abs),
    ({"type": "THRESHOLD", "alpha": 0.7}, lambda v: max(v, 0.7)),
]
FUNCTIONS: list[tuple[str, Callable[[float], float], Array]] = [
    ("ceil", math.ceil, X),
    ("floor", math.floor, X),
    ("sign", lambda v: (v > 0) - (v < 0), X),
    ("round", round, X),
    ("exp2", lambda v: 2**v, X),
    ("sin", math.sin, X),
    ("cos", math.cos, X),
    ("tan", math.tan, X),
    ("asin", math.asin, X / 30),
    ("acos", math.acos, X / 30),
    ("atan", math.atan, X),
    ("sinh", math.sinh, X / 10),
    ("cosh", math.cosh, X / 10),
    ("tanh", math.tanh, X),
    ("asinh", math.asinh, X),
    ("acosh", math.acosh, np.abs(X) + 1),
    ("atanh", math.atanh, X / 31),
    ("erf", math.erf, X),
    ("logicalNot", lambda v: float(v == 0), X),
]
GELU: list[tuple[str, Callable[[float], float]]] = [
    ("EXACT", lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2)))),
    (
        "TANH_APPROXIMATION",
        lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    ),
    ("SIGMOID_APPROXIMATION", lambda v: v * sigmoid(1.702 * v)),
]


def per_channel() -> list[Case]:
    x, a, b = values(2, 3, 2, 2), np.array([0.1, 0.5, -1.0]), np.array([1.0, 2.0, 0.5])
    leaky, soft = np.zeros(x.shape), np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        v, c = float(x[place]), place[1]
        leaky[place] = v if v >= 0 else a[c] * v
        soft[place] = a[c] * math.log(1 + math.exp(b[c] * v))
    return [
        *classic("activation", {"PReLU": {"alpha": a}}, [x], leaky),
        *classic("activation", {"parametricSoftplus": {"alpha": a, "beta": b}}, [x], soft),
    ]


def pairs(function: Callable[[float, float], float], left: Array, right: Array) -> Array:
    shape = np.broadcast_shapes(left.shape, right.shape)
    wide_left, wide_right = np.broadcast_to(left, shape), np.broadcast_to(right, shape)
    y = [
        function(float(a), float(b))
        for a, b in zip(wide_left.reshape(-1), wide_right.reshape(-1), strict=True)
    ]
    return np.array(y, np.float64).reshape(shape)


A, B = values(2, 3, 1, 2), values(3, 4, 1, seed=1)
WHOLE = np.array([[-7.0, 7.0, 5.0, -5.0]]), np.array([[2.0, -2.0, 3.0, -3.0], [1.0, 4.0, 5.0, 2.0]])
TRUTH = np.array([[0.0, 1.0, -2.0]]), np.array([[0.0], [3.0]])
SOME = np.array([[1.0, 2.0, 2.0]]), np.array([[2.0], [1.0]])
BINARY: list[tuple[str, Callable[[float, float], float], Array, Array]] = [
    ("addBroadcastable", lambda a, b: a + b, A, B),
    ("subtractBroadcastable", lambda a, b: a - b, A, B),
    ("multiplyBroadcastable", lambda a, b: a * b, A, B),
    ("divideBroadcastable", lambda a, b: a / b, A, B),
    ("maxBroadcastable", max, A, B),
    ("minBroadcastable", min, A, B),
    ("floorDivBroadcastable", lambda a, b: math.floor(a / b), *WHOLE),
    ("modBroadcastable", lambda a, b: a - b * math.floor(a / b), *WHOLE),
    ("powBroadcastable", lambda a, b: a**b, np.abs(A) + 0.1, B),
    ("logicalAnd", lambda a, b: bool(a) and bool(b), *TRUTH),
    ("logicalOr", lambda a, b: bool(a) or bool(b), *TRUTH),
    ("logicalXor", lambda a, b: bool(a) != bool(b), *TRUTH),
    ("equal", lambda a, b: a == b, *SOME),
    ("notEqual", lambda a, b: a != b, *SOME),
    ("lessThan", lambda a, b: a < b, *SOME),
    ("lessEqual", lambda a, b: a <= b, *SOME),
    ("greaterThan", lambda a, b: a > b, *SOME),
    ("greaterEqual", lambda a, b: a >= b, *SOME),
]
COMPARED: list[tuple[str, list[int]]] = [
    ("equal", [0, 1, 0]),
    ("notEqual", [1, 0, 1]),
    ("lessThan", [1, 0, 0]),
    ("lessEqual", [1, 1, 0]),
    ("greaterThan", [0, 0, 1]),
    ("greaterEqual", [0, 1, 1]),
]
ONE, TWO, THREE = values(2, 3, 2, 2), values(2, 3, 2, 2, seed=1), values(2, 3, 2, 2, seed=2)


def legacy() -> list[Case]:
    result: list[Case] = []
    for kind, function in (
        ("add", sum),
        ("multiply", math.prod),
        ("average", lambda vs: sum(vs) / len(vs)),
        ("max", max),
        ("min", min),
    ):
        y = np.zeros(ONE.shape)
        for place in np.ndindex(y.shape):
            y[place] = function([float(x[place]) for x in (ONE, TWO, THREE)])
        result += classic(kind, {}, [ONE, TWO, THREE], y)
    # The shapes that the comments of the format name.
    for shape in ((2, 1, 1, 1), (2, 3, 1, 1), (2, 1, 2, 2)):
        small = values(*shape, seed=3)
        result += classic("add", {}, [ONE, small], pairs(lambda a, b: a + b, ONE, small))
        result += classic("multiply", {}, [small, ONE], pairs(lambda a, b: a * b, small, ONE))
        result += classic("max", {}, [ONE, small], pairs(max, ONE, small))
        result += classic("average", {}, [ONE, small], pairs(lambda a, b: (a + b) / 2, ONE, small))
    result += classic("add", {"alpha": 2.5}, [ONE], each(lambda v: v + 2.5, ONE))
    result += classic("add", {}, [ONE], ONE)
    result += classic("multiply", {"alpha": -3}, [ONE], each(lambda v: v * -3, ONE))
    return result


def shaped(x: Array) -> Array:
    return x.reshape(1, 3, 2, -1)


CASES: list[Case] = [
    *(
        row
        for params, function in ACTIVATIONS
        for row in classic("activation", params, [shaped(X)], each(function, shaped(X)))
    ),
    *per_channel(),
    exact("activation", {"ReLU": {}}, [[-1.0, 2.0]], [0.0, 2.0]),
    *(
        row
        for params, function in UNARY
        for row in classic(
            "unary",
            params,
            [np.linspace(0.25, 3, 12).reshape(1, 3, 2, 2)],
            each(function, np.linspace(0.25, 3, 12).reshape(1, 3, 2, 2)),
        )
    ),
    exact("unary", {"type": "ABS"}, [[-1.0, 2.0]], [1.0, 2.0]),
    *(
        exact(kind, {}, [x.reshape(3, 4)], each(function, x.astype(np.float32).reshape(3, 4)))
        for kind, function, x in FUNCTIONS
    ),
    *(exact("gelu", {"mode": mode}, [X], each(function, X)) for mode, function in GELU),
    exact("clip", {"minVal": -0.5, "maxVal": 2}, [X], each(lambda v: min(max(v, -0.5), 2), X)),
    exact(
        "clampedReLU",
        {"alpha": 0.5, "beta": 2},
        [X],
        each(lambda v: min(2, v) if v >= 0 else min(2, 0.5 * v), X),
    ),
    exact("clampedReLU", {"alpha": -1, "beta": 2}, [[-5.0, -1.0, 3.0]], [2.0, 1.0, 2.0]),
    *(
        exact(kind, {}, [left, right], pairs(function, left, right))
        for kind, function, left, right in BINARY
    ),
    *(
        exact(kind, {"alpha": 2.0}, [[1.0, 2.0, 3.0]], np.array(wanted))
        for kind, wanted in COMPARED
    ),
    *legacy(),
]
