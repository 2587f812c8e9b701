"""Random layers with one possible outcome; their distributions have a test of their own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.layers.case import Case, exact

SHAPE = (2, 3)
SURE: list[tuple[str, dict[str, Any], float]] = [
    ("Normal", {"mean": 2.5, "stdDev": 0}, 2.5),
    ("Uniform", {"minVal": -1, "maxVal": -1}, -1),
    ("Bernoulli", {"prob": 1}, 1),
    ("Bernoulli", {"prob": 0}, 0),
]
FORMS: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("Like", {}, [np.zeros(SHAPE)]),
    ("Static", {"outputShape": SHAPE}, []),
    ("Dynamic", {}, [SHAPE]),
]

CASES: list[Case] = [
    *(
        exact(f"random{name}{form}", {**params, **more}, inputs, np.full(SHAPE, value))
        for (name, params, value), (form, more, inputs) in itertools.product(SURE, FORMS)
    ),
    exact(
        "categoricalDistribution",
        {"numSamples": 3, "isLogits": True},
        [[[0, 0, 200], [200, 0, 0]]],
        [[2, 2, 2], [0, 0, 0]],
    ),
    exact("categoricalDistribution", {"seed": 3}, [[[[0, 1]]]], [[[1]]]),
]
