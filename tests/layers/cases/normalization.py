"""Normalization and softmax, against loops over the values that share statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tests.layers.case import Case, classic, exact
from tests.layers.naive import Array, values

X = values(2, 3, 2, 4)
GAMMA, BETA, MEAN, VARIANCE = (
    np.array(v) for v in ([1.0, 0.5, -2.0], [0.1, 0.0, 3.0], [0.2, -0.3, 1.0], [0.5, 2.0, 0.0])
)
Group = Callable[[tuple[int, ...]], Any]


def grouped(x: Array, group: Group) -> dict[Any, list[float]]:
    """The values of `x` by what `group` says of their position."""
    results: dict[Any, list[float]] = {}
    for place in np.ndindex(x.shape):
        results.setdefault(group(place), []).append(float(x[place]))
    return results


def moments(members: Iterable[float]) -> tuple[float, float]:
    numbers = list(members)
    mean = sum(numbers) / len(numbers)
    return mean, sum((v - mean) ** 2 for v in numbers) / len(numbers)


def standardized(x: Array, group: Group, epsilon: float, variance: bool = True) -> Array:
    groups = grouped(x, group)
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        mean, spread = moments(groups[group(place)])
        y[place] = (x[place] - mean) / (math.sqrt(spread + epsilon) if variance else 1)
    return y


def affine(y: Array) -> Array:
    return y * GAMMA[:, None, None] + BETA[:, None, None]


def softmax(x: Array, group: Group) -> Array:
    groups = grouped(x, group)
    y = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        y[place] = math.exp(x[place]) / sum(math.exp(v) for v in groups[group(place)])
    return y


def without(axis: int) -> Group:
    return lambda place: (*place[:axis], *place[axis + 1 :])


def stored() -> Array:
    y = np.zeros(X.shape)
    for b, c, h, w in np.ndindex(X.shape):
        scale = GAMMA[c] / math.sqrt(VARIANCE[c] + 1e-5)
        y[b, c, h, w] = (X[b, c, h, w] - MEAN[c]) * scale + BETA[c]
    return y


def lrn(size: int, before: int, alpha: float, beta: float, k: float) -> Array:
    y = np.zeros(X.shape)
    for b, c, h, w in np.ndindex(X.shape):
        near = [n for n in range(c - before, c - before + size) if 0 <= n < X.shape[1]]
        total = sum(float(X[b, n, h, w]) ** 2 for n in near)
        y[b, c, h, w] = X[b, c, h, w] / (k + alpha / size * total) ** beta
    return y


def l2(epsilon: float) -> Array:
    sums = {key: sum(v * v for v in vs) for key, vs in grouped(X, lambda p: p[0]).items()}
    return X / np.sqrt([sums[0] + epsilon, sums[1] + epsilon]).reshape(2, 1, 1, 1)


NORM = {"channels": 3, "gamma": GAMMA, "beta": BETA}
ZERO = {"mean": np.zeros(3), "variance": np.ones(3)}
LN_GAMMA, LN_BETA = values(2, 4, seed=5), values(2, 4, seed=6)
SCALE, SCALE_BIAS = values(3, 2, 4, seed=7), values(1, 2, 4, seed=8)

CASES: list[Case] = [
    *classic(
        "batchnorm", {**NORM, "mean": MEAN, "variance": VARIANCE}, [X], stored(), tolerance=1e-4
    ),
    exact(
        "batchnorm",
        {**NORM, **ZERO, "epsilon": 1.0},
        [X[0]],
        X[0] / math.sqrt(2) * GAMMA[:, None, None] + BETA[:, None, None],
    ),
    *classic(
        "batchnorm",
        {**NORM, **ZERO, "computeMeanVar": True, "epsilon": 0.1},
        [X],
        affine(standardized(X, lambda p: p[1], 0.1)),
    ),
    *classic(
        "batchnorm",
        {**NORM, "computeMeanVar": True, "instanceNormalization": True},
        [X],
        affine(standardized(X, lambda p: p[:2], 1e-5)),
        tolerance=1e-4,
    ),
    exact(
        "batchnorm",
        {**NORM, "computeMeanVar": True, "epsilon": 0.1},
        [X[None]],
        affine(standardized(X, lambda p: p[1], 0.1))[None],
    ),
    *classic("mvn", {}, [X], standardized(X, lambda p: p[:2], 0, False)),
    *classic("mvn", {"normalizeVariance": True}, [X], standardized(X, lambda p: p[:2], 1e-6)),
    *classic(
        "mvn",
        {"acrossChannels": True, "normalizeVariance": True, "epsilon": 0.5},
        [X],
        standardized(X, lambda p: p[0], 0.5),
    ),
    *classic("mvn", {"acrossChannels": True}, [X], standardized(X, lambda p: p[0], 0, False)),
    *classic("l2normalize", {}, [X], l2(1e-6)),
    *classic("l2normalize", {"epsilon": 2.0}, [X], l2(2.0)),
    *classic("softmax", {}, [X], softmax(X, without(1))),
    exact("softmax", {}, [[[[1000.0]], [[1000.0]]]], [[[0.5]], [[0.5]]]),
    *(
        exact("softmaxND", {"axis": axis}, [X], softmax(X, without(axis % 4)))
        for axis in (0, 2, -1, -4)
    ),
    *classic("lrn", {"alpha": 0.5, "beta": 0.75, "localSize": 3}, [X], lrn(3, 1, 0.5, 0.75, 1.0)),
    *classic("lrn", {"alpha": 2, "beta": 3, "localSize": 1, "k": 8}, [X], lrn(1, 0, 2.0, 3.0, 8.0)),
    *classic(
        "lrn", {"alpha": 1, "beta": 0.5, "localSize": 5, "k": 2}, [X], lrn(5, 2, 1.0, 0.5, 2.0)
    ),
    *classic(
        "lrn", {"alpha": 1, "beta": 0.5, "localSize": 2, "k": 2}, [X], lrn(2, 0, 1.0, 0.5, 2.0)
    ),
    exact(
        "layerNormalization",
        {"normalizedShape": (2, 4), "eps": 0.1, "gamma": LN_GAMMA, "beta": LN_BETA},
        [X],
        standardized(X, lambda p: p[:2], 0.1) * LN_GAMMA + LN_BETA,
    ),
    exact(
        "layerNormalization",
        {"normalizedShape": (4,), "gamma": np.ones(4), "beta": np.zeros(4)},
        [X],
        standardized(X, lambda p: p[:3], 1e-5),
        tolerance=1e-4,
    ),
    *classic("scale", {"shapeScale": (1,), "scale": np.array([3.0])}, [X], X * 3),
    *classic(
        "scale",
        {
            "shapeScale": (3,),
            "scale": GAMMA,
            "hasBias": True,
            "shapeBias": (3,),
            "bias": BETA,
        },
        [X],
        affine(X),
    ),
    *classic(
        "scale",
        {
            "shapeScale": (3, 2, 4),
            "scale": SCALE,
            "hasBias": True,
            "shapeBias": (1, 2, 4),
            "bias": SCALE_BIAS,
        },
        [X],
        np.stack([x * SCALE + SCALE_BIAS for x in X]),
    ),
    exact(
        "scale",
        {"shapeScale": (3,), "scale": GAMMA},
        [X[0, :, :, :3]],
        X[0, :, :, :3] * GAMMA[:, None, None],
    ),
    *classic("bias", {"shape": (3,), "bias": BETA}, [X], X + BETA[:, None, None]),
    *classic("bias", {"shape": (1,), "bias": np.array([2.0])}, [X], X + 2),
    *classic("bias", {"shape": (3, 2, 4), "bias": SCALE}, [X], X + SCALE),
    *classic("bias", {"shape": (1, 2, 4), "bias": SCALE_BIAS}, [X], X + SCALE_BIAS),
]
