"""Layers that draw random values.

A seed gives the same values in every run; -1 gives new ones each time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.layers.dynamic.kernel import target
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.numerics.functions import softmax_along

Shape = tuple[int, ...]


def _generator(params: Params) -> np.random.Generator:
    """A generator; seeds are signed 64-bit integers, where -1 means no seed."""
    return np.random.default_rng(None if params.seed == -1 else params.seed % 2**64)


def _normal(params: Params, shape: Shape) -> Array:
    return params.mean + params.stdDev * _generator(params).standard_normal(shape, np.float32)


def _uniform(params: Params, shape: Shape) -> Array:
    return params.minVal + (params.maxVal - params.minVal) * _generator(params).random(
        shape, np.float32
    )


def _bernoulli(params: Params, shape: Shape) -> Array:
    return (_generator(params).random(shape, np.float32) < params.prob).astype(np.float32)


_DRAWS: dict[str, Callable[[Params, Shape], Array]] = {
    "Normal": _normal,
    "Uniform": _uniform,
    "Bernoulli": _bernoulli,
}
_BY_KIND = {
    f"random{name}{form}": draw
    for name, draw in _DRAWS.items()
    for form in ("Like", "Static", "Dynamic")
}


@kernel(*_BY_KIND)
def random(params: Params, *given: Array) -> Array:
    return _BY_KIND[params.kind](params, target(params, "outputShape", *given))


@kernel("categoricalDistribution")
def categorical_distribution(params: Params, x: Array) -> Array:
    """Indices of the last axis, drawn from its logits, or from its probabilities.

    `eps` keeps the logarithm of a probability finite; logits are divided by `temperature`.
    """
    logits = x if params.isLogits else np.log(x + np.float32(params.eps))
    chances = softmax_along(logits.astype(np.float64) / params.temperature, -1)
    bounds = np.cumsum(chances, axis=-1).reshape(-1, x.shape[-1])
    draws = _generator(params).random((len(bounds), params.numSamples))
    results = [
        np.searchsorted(row, draw, side="right") for row, draw in zip(bounds, draws, strict=True)
    ]
    indices = np.minimum(np.array(results, np.float32), x.shape[-1] - 1)
    return indices.reshape(*x.shape[:-1], params.numSamples)
