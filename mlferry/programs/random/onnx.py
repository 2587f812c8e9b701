"""Random values, which are not those that mlferry's own runtime draws."""

from __future__ import annotations

import numpy as np

from mlferry.onnx_graph.emitter import FLOAT, Emitter
from mlferry.programs.exports import Call, cast, export


def _drawn(emitter: Emitter, op: str, shape: str, seed: int) -> str:
    """Values from 0 to 1, or from the standard normal distribution."""
    zeros = np.zeros(1, np.float32)
    like = emitter.node("ConstantOfShape", emitter.reshape(emitter.whole(shape), [-1]), value=zeros)
    return emitter.node(op, like, dtype=FLOAT, seed=None if seed < 0 else float(seed))


def _affine(emitter: Emitter, numbers: str, factor: float, shift: float) -> str:
    """Standard numbers are scaled here, because runtimes refuse a deviation of 0."""
    y = emitter.node("Mul", numbers, emitter.number(factor))
    return emitter.node("Add", y, emitter.number(shift))


@export("random_bernoulli", random=True)
def bernoulli(emitter: Emitter, call: Call, shape: str, prob: float, seed: int) -> str:
    numbers = _drawn(emitter, "RandomUniformLike", shape, seed)
    return cast(emitter, emitter.node("Less", numbers, emitter.number(prob)), call.dtype)


@export("random_normal", random=True)
def normal(emitter: Emitter, call: Call, shape: str, mean: float, stddev: float, seed: int) -> str:
    return _affine(emitter, _drawn(emitter, "RandomNormalLike", shape, seed), stddev, mean)


@export("random_uniform", random=True)
def uniform(emitter: Emitter, call: Call, shape: str, low: float, high: float, seed: int) -> str:
    numbers = _drawn(emitter, "RandomUniformLike", shape, seed)
    return _affine(emitter, numbers, high - low, low)


@export("random_categorical", random=True)
def categorical(emitter: Emitter, call: Call, x: str, mode: str, size: int, seed: int) -> str:
    """ONNX takes a batch of logits."""
    logits = x if mode == "logits" else emitter.node("Log", x)
    *outer, classes = emitter.extents(x)
    rows = emitter.reshape(logits, [-1, classes])
    start = None if seed < 0 else float(seed)
    numbers = emitter.node("Multinomial", rows, sample_size=size, seed=start)
    return emitter.reshape(cast(emitter, numbers, "float32"), [*outer, size])
