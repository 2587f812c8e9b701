"""Layers that draw random values.

A seed gives the same values at every run; -1 gives others each time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.layers.dynamic.kernel import extents
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.normalization.kernel import softmax_along
from mlferry.layers.params import Params

Shape = tuple[int, ...]


def _generator(p: Params) -> np.random.Generator:
    """A generator; seeds are 64 bits with a sign, of which only -1 means none."""
    return np.random.default_rng(None if p.seed == -1 else p.seed % 2**64)


def _normal(p: Params, shape: Shape) -> Array:
    return p.mean + p.stdDev * _generator(p).standard_normal(shape, np.float32)


def _uniform(p: Params, shape: Shape) -> Array:
    return p.minVal + (p.maxVal - p.minVal) * _generator(p).random(shape, np.float32)


def _bernoulli(p: Params, shape: Shape) -> Array:
    return (_generator(p).random(shape, np.float32) < p.prob).astype(np.float32)


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


@kernel(*(f"random{name}Like" for name in _DRAWS))
def random_like(p: Params, x: Array) -> Array:
    return _BY_KIND[p.kind](p, x.shape)


@kernel(*(f"random{name}Static" for name in _DRAWS))
def random_static(p: Params) -> Array:
    return _BY_KIND[p.kind](p, tuple(p.outputShape))


@kernel(*(f"random{name}Dynamic" for name in _DRAWS))
def random_dynamic(p: Params, shape: Array) -> Array:
    return _BY_KIND[p.kind](p, extents(shape))


@kernel("categoricalDistribution")
def categorical_distribution(p: Params, x: Array) -> Array:
    """Indices of the last axis, drawn from its logits, or from its probabilities.

    `eps` keeps the logarithm of a probability finite; logits are divided by `temperature`.
    """
    logits = x if p.isLogits else np.log(x + np.float32(p.eps))
    chances = softmax_along(logits.astype(np.float64) / p.temperature, -1)
    bounds = np.cumsum(chances, axis=-1).reshape(-1, x.shape[-1])
    draws = _generator(p).random((len(bounds), p.numSamples))
    found = [
        np.searchsorted(row, draw, side="right") for row, draw in zip(bounds, draws, strict=True)
    ]
    indices = np.minimum(np.array(found, np.float32), x.shape[-1] - 1)
    return indices.reshape(*x.shape[:-1], p.numSamples)
