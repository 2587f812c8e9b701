"""Layers that draw random values: of the same distribution, but not the same values."""

from __future__ import annotations

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value

_NAMES = ("Normal", "Uniform", "Bernoulli")


def _drawn(builder: ProgramBuilder, params: Params, shape: Value) -> Value:
    if "Normal" in params.kind:
        op, fields = "random_normal", {"mean": params.mean, "stddev": params.stdDev}
    elif "Uniform" in params.kind:
        op, fields = "random_uniform", {"low": params.minVal, "high": params.maxVal}
    else:
        op, fields = "random_bernoulli", {"prob": params.prob}
    arguments = {name: np.float32(value) for name, value in fields.items()}
    return builder.op(op, shape=shape, seed=int(params.seed), **arguments)


@as_program(*(f"random{name}Like" for name in _NAMES), random=True)
def random_like(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return _drawn(builder, params, builder.vector(builder.extents(x)))


@as_program(*(f"random{name}Static" for name in _NAMES), random=True)
def random_static(builder: ProgramBuilder, params: Params) -> Value:
    return _drawn(builder, params, builder.integers(params.outputShape))


@as_program(*(f"random{name}Dynamic" for name in _NAMES), random=True)
def random_dynamic(builder: ProgramBuilder, params: Params, shape: Value) -> Value:
    return _drawn(builder, params, builder.as_integer(shape))


@as_program("categoricalDistribution", random=True)
def categorical_distribution(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Indices of the last axis, drawn from its logits, or from its probabilities."""
    logits = builder.as_float(x)
    if not params.isLogits:
        logits = builder.op("log", x=logits, epsilon=params.eps)
    logits = builder.affine(logits, float(np.float32(1 / params.temperature)), 0)
    return builder.op(
        "random_categorical", x=logits, mode="logits", size=params.numSamples, seed=int(params.seed)
    )
