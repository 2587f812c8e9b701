"""Random values: the same each time for a seed, though not those that a device draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.numerics.functions import softmax_along
from mlferry.programs.kernels import Array, Call, kernel


def _source(call: Call, seed: int) -> np.random.Generator:
    return call.random if seed < 0 else np.random.default_rng(seed)


def _shape(shape: Array) -> tuple[int, ...]:
    extents = tuple(int(n) for n in np.ravel(shape))
    limits.check("blob", 4 * math.prod(extents), f"random values of shape {extents} take bytes:")
    return extents


@kernel("random_bernoulli")
def bernoulli(call: Call, shape: Array, prob: float, seed: int) -> Any:
    return _source(call, seed).random(_shape(shape)) < prob


@kernel("random_normal")
def normal(call: Call, shape: Array, mean: float, stddev: float, seed: int) -> Array:
    return _source(call, seed).normal(mean, stddev, _shape(shape))


@kernel("random_uniform")
def uniform(call: Call, shape: Array, low: float, high: float, seed: int) -> Array:
    return _source(call, seed).uniform(low, high, _shape(shape))


@kernel("random_categorical")
def categorical(call: Call, x: Array, mode: str, size: int, seed: int) -> Array:
    chances = softmax_along(x, -1) if mode == "logits" else x / x.sum(-1, keepdims=True)
    ends = np.cumsum(chances, -1)
    numbers = _source(call, seed).random((*x.shape[:-1], size))
    places = (numbers[..., None] >= ends[..., None, :]).sum(-1)
    return np.minimum(places, x.shape[-1] - 1)
