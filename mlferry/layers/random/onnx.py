"""Layers that draw random values: of the same distribution, but not the same values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.layers.dynamic.onnx import filled
from mlferry.layers.elementwise.onnx import affine
from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.numerics.shapes import product
from mlferry.onnx_graph.emitter import FLOAT, INT32, Emitter

_NAMES = ("Normal", "Uniform", "Bernoulli")


def _seed(p: Params) -> float | None:
    return None if p.seed == -1 else float(p.seed)


def _drawn(e: Emitter, p: Params, like: str) -> str:
    """Values of the shape of another value."""
    attributes: dict[str, Any] = {"dtype": FLOAT, "seed": _seed(p)}
    if "Normal" in p.kind:
        y = e.node("RandomNormalLike", like, mean=0.0, scale=1.0, **attributes)
        return affine(e, y, p.stdDev, p.mean)
    y = e.node("RandomUniformLike", like, low=0.0, high=1.0, **attributes)
    if "Uniform" in p.kind:
        return affine(e, y, p.maxVal - p.minVal, p.minVal)
    return e.from_flag(e.node("Less", y, e.number(p.prob)))


@op(*(f"random{name}Like" for name in _NAMES), random=True)
def random_like(e: Emitter, p: Params, x: str) -> str:
    return _drawn(e, p, x)


@op(*(f"random{name}Static" for name in _NAMES), random=True)
def random_static(e: Emitter, p: Params) -> str:
    return _drawn(e, p, filled(e, 0, e.integers(p.outputShape)))


@op(*(f"random{name}Dynamic" for name in _NAMES), random=True)
def random_dynamic(e: Emitter, p: Params, shape: str) -> str:
    return _drawn(e, p, filled(e, 0, e.whole(shape)))


@op("categoricalDistribution", random=True)
def categorical_distribution(e: Emitter, p: Params, x: str) -> str:
    """Indices of the last axis, drawn from its logits, or from its probabilities."""
    logits = x if p.isLogits else e.node("Log", affine(e, x, 1, p.eps))
    logits = affine(e, logits, float(np.float32(1 / p.temperature)), 0)
    shape = e.shape(x)
    rows = product(shape[:-1])
    table = e.reshape(logits, [-1 if rows is None else rows, e.extent(x, -1)])
    drawn = e.node("Multinomial", table, dtype=INT32, sample_size=p.numSamples, seed=_seed(p))
    e.shapes[drawn] = (rows, p.numSamples)
    return e.reshape(e.node("Cast", drawn, to=FLOAT), [*e.extents(x)[:-1], p.numSamples])
