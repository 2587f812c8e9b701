"""What tests of several kernels compare with, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.runtime.planned.finish import (
    Affine,
    Clipping,
    Combination,
    Finish,
    NamedFunction,
    Rounding,
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(0, 1, shape).astype(np.float32)


def finishes(y: np.ndarray, steps: tuple[str, ...]) -> tuple[Finish, Callable[[Any], Any]]:
    """What follows a product, and the same as one function."""
    height, width, count = y.shape
    bias, addend = normal(count, seed=1), normal(height, width + 3, count, seed=2)[:, :width]
    factor, shift = normal(count, seed=3), normal(count, seed=4)
    known: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray]]] = {
        "add": (Combination(np.add, addend, False), lambda v: v + addend),
        "subtract": (Combination(np.subtract, addend, True), lambda v: addend - v),
        "relu": (Clipping(np.float32(0)), lambda v: np.maximum(v, 0)),
        "clip": (Clipping(np.float32(-0.5), np.float32(0.7)), lambda v: np.clip(v, -0.5, 0.7)),
        "round": (Rounding(), lambda v: v.astype(np.float16).astype(np.float64)),
        "tanh": (NamedFunction("tanh", lambda x, out: np.tanh(x, out=out)), np.tanh),
        "affine": (Affine(factor, shift), lambda v: v * factor + shift),
        "double": (lambda x, out: np.multiply(x, 2, out=out), lambda v: 2 * v),
    }

    def function(values: np.ndarray) -> np.ndarray:
        values = values + bias
        for step in steps:
            values = known[step][1](values)
        return values

    return Finish(bias=bias, steps=[known[step][0] for step in steps]), function
