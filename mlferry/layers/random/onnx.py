"""Layers that draw random values: of the same distribution, but not the same values."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.layers.dynamic.onnx import filled, target
from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.layers.random.definition import RANDOM
from mlferry.numerics.shapes import product
from mlferry.onnx_graph.emitter import FLOAT, INT32, Emitter


def _seed(params: Params) -> float | None:
    return None if params.seed == -1 else float(params.seed)


def _drawn(emitter: Emitter, params: Params, like: str) -> str:
    """Values of the shape of another value."""
    attributes: dict[str, Any] = {"dtype": FLOAT, "seed": _seed(params)}
    if "Normal" in params.kind:
        y = emitter.node("RandomNormalLike", like, mean=0.0, scale=1.0, **attributes)
        return emitter.affine(y, params.stdDev, params.mean)
    y = emitter.node("RandomUniformLike", like, low=0.0, high=1.0, **attributes)
    if "Uniform" in params.kind:
        return emitter.affine(y, params.maxVal - params.minVal, params.minVal)
    return emitter.from_flag(emitter.node("Less", y, emitter.number(params.prob)))


@op(*RANDOM, random=True)
def random(emitter: Emitter, params: Params, *given: str) -> str:
    if params.kind.endswith("Like"):
        return _drawn(emitter, params, *given)
    shape = target(emitter, params, "outputShape", *given)
    return _drawn(emitter, params, filled(emitter, 0, shape))


@op("categoricalDistribution", random=True)
def categorical_distribution(emitter: Emitter, params: Params, x: str) -> str:
    """Indices of the last axis, drawn from its logits, or from its probabilities."""
    logits = x if params.isLogits else emitter.node("Log", emitter.affine(x, 1, params.eps))
    logits = emitter.affine(logits, float(np.float32(1 / params.temperature)), 0)
    shape = emitter.shape(x)
    rows = product(shape[:-1])
    table = emitter.reshape(logits, [-1 if rows is None else rows, emitter.extent(x, -1)])
    samples = emitter.node(
        "Multinomial", table, dtype=INT32, sample_size=params.numSamples, seed=_seed(params)
    )
    emitter.shapes[samples] = (rows, params.numSamples)
    return emitter.reshape(
        emitter.node("Cast", samples, to=FLOAT), [*emitter.extents(x)[:-1], params.numSamples]
    )
