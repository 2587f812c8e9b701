"""Layers that draw random values: of the same distribution, but not the same values."""

from __future__ import annotations

import numpy as np

from mlferry.layers.dynamic.program import target
from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.layers.random.definition import RANDOM
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program(*RANDOM, random=True)
def random(builder: ProgramBuilder, params: Params, *given: Value) -> Value:
    if "Normal" in params.kind:
        op, fields = "random_normal", {"mean": params.mean, "stddev": params.stdDev}
    elif "Uniform" in params.kind:
        op, fields = "random_uniform", {"low": params.minVal, "high": params.maxVal}
    else:
        op, fields = "random_bernoulli", {"prob": params.prob}
    arguments = {name: np.float32(value) for name, value in fields.items()}
    shape = target(builder, params, "outputShape", *given)
    return builder.op(op, shape=shape, seed=int(params.seed), **arguments)


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
