"""Activations, arithmetic and comparisons, value by value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.program_weights import weight
from mlferry.layers.programs import as_program
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value
from mlferry.spec import weights

_FARTHEST = 1e38
Write = Callable[[ProgramBuilder, Any, Value], Value]


def _op(name: str, *fields: str) -> Write:
    """An op whose parameters are fields of the layer, called alpha and beta there as well."""
    return lambda b, a, x: b.op(name, x=x, **{field: getattr(a, field) for field in fields})


def _is_single(a: Params, *names: str) -> bool:
    return all(weights.count(getattr(a.message, name)) == 1 for name in names)


def _channels(builder: ProgramBuilder, a: Params, name: str, x: Value) -> Value:
    """One value, or one per channel (axis -3), that broadcasts with x."""
    single = _is_single(a, name)
    return weight(builder, a, name, (1,) if single else (x.shape[-3] or 0, 1, 1))


def _prelu(builder: ProgramBuilder, a: Params, x: Value) -> Value:
    if _is_single(a, "alpha"):
        return builder.op("leaky_relu", x=x, alpha=float(a.decoded("alpha", (1,))[0]))
    if x.rank == 4 and x.shape[1] is not None:
        return builder.op("prelu", x=x, alpha=a.decoded("alpha", (x.shape[1],)))
    below = builder.op("mul", x=x, y=_channels(builder, a, "alpha", x))
    return builder.where(builder.op("greater_equal", x=x, y=np.float32(0)), x, below)


def _parametric_softplus(builder: ProgramBuilder, a: Params, x: Value) -> Value:
    if x.rank == 4 and x.shape[1] is not None and not _is_single(a, "alpha", "beta"):
        pair: dict[str, Any] = {
            name: np.resize(a.decoded(name, (weights.count(getattr(a.message, name)),)), x.shape[1])
            for name in ("alpha", "beta")
        }
        return builder.op("softplus_parametric", x=x, **pair)
    inner = builder.op("softplus", x=builder.op("mul", x=x, y=_channels(builder, a, "beta", x)))
    return builder.op("mul", x=inner, y=_channels(builder, a, "alpha", x))


def _linear(builder: ProgramBuilder, a: Params, x: Value) -> Value:
    if a.alpha not in (0, 1) and a.beta:
        return builder.op("linear_activation", x=x, alpha=a.alpha, beta=a.beta)
    return builder.affine(x, a.alpha, a.beta)


ACTIVATIONS: dict[str, Write] = {
    "linear": _linear,
    "ReLU": _op("relu"),
    "leakyReLU": _op("leaky_relu", "alpha"),
    "thresholdedReLU": _op("thresholded_relu", "alpha"),
    "PReLU": _prelu,
    "tanh": _op("tanh"),
    "scaledTanh": _op("scaled_tanh", "alpha", "beta"),
    "sigmoid": _op("sigmoid"),
    "sigmoidHard": _op("sigmoid_hard", "alpha", "beta"),
    "ELU": _op("elu", "alpha"),
    "softsign": _op("softsign"),
    "softplus": _op("softplus"),
    "parametricSoftplus": _parametric_softplus,
}


@as_program("activation")
def activation(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    kind = params.which("NonlinearityType") or "linear"
    return ACTIVATIONS[kind](builder, getattr(params, kind), builder.as_float(x))


_UNARY: dict[str, Write] = {
    "SQRT": _op("sqrt"),
    "RSQRT": _op("rsqrt", "epsilon"),
    "INVERSE": _op("inverse", "epsilon"),
    "POWER": lambda builder, params, x: builder.op("pow", x=x, y=np.float32(params.alpha)),
    "EXP": _op("exp"),
    "LOG": lambda builder, params, x: builder.op("log", x=x, epsilon=0.0),
    "ABS": _op("abs"),
    "THRESHOLD": lambda builder, params, x: builder.op(
        "threshold", x=x, alpha=np.float32(params.alpha)
    ),
}


@as_program("unary")
def unary(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    scaled = builder.affine(builder.as_float(x), params.scale, params.shift)
    return _UNARY[params.type](builder, params, scaled)


@as_program("clip")
def clip(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """`clip` needs a lower bound below the upper one; infinite bounds are left out."""
    least, most = params.minVal, params.maxVal
    if x.dtype == "fp32" and (least, most) == (0, 6):
        return builder.op("relu6", x=x)
    bounded = -_FARTHEST <= least < most <= _FARTHEST
    if x.dtype == "fp32" and bounded:
        return builder.op("clip", x=x, alpha=least, beta=most)
    if least >= -_FARTHEST:
        x = builder.binary("maximum", x, least)
    return builder.binary("minimum", x, most) if most <= _FARTHEST else x


@as_program("clampedReLU")
def clamped_relu(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    if (params.alpha, params.beta) == (0, 6):
        return builder.op("relu6", x=builder.as_float(x))
    return builder.op("clamped_relu", x=builder.as_float(x), alpha=params.alpha, beta=params.beta)


@as_program("gelu")
def gelu(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.op("gelu", x=builder.as_float(x), mode=params.mode)


@as_program("exp2")
def exp2(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.op("exp2", x=builder.as_float(x))


@as_program("asinh")
def asinh(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """sign(x) log(|x| + sqrt(x ** 2 + 1)), divided by max(|x|, 1) so that no square overflows."""
    x = builder.as_float(x)
    size = builder.op("abs", x=x)
    large = builder.binary("maximum", size, 1)
    small = builder.binary("minimum", size, 1)
    part = builder.op("inverse", x=large, epsilon=0.0)
    squares = [builder.op("mul", x=value, y=value) for value in (small, part)]
    root = builder.op("sqrt", x=builder.op("add", x=squares[0], y=squares[1]))
    logs = [
        builder.op("log", x=value, epsilon=0.0)
        for value in (large, builder.op("add", x=small, y=root))
    ]
    total = builder.op("add", x=logs[0], y=logs[1])
    return builder.op("mul", x=builder.op("sign", x=x), y=total)


@as_program("acosh")
def acosh(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """log 2 + log(h + sqrt(h - 1/2) sqrt(h + 1/2)) of h = x / 2, which is in range where x is;
    NaN below 1."""
    h = builder.affine(builder.as_float(x), 0.5, 0)
    roots = [builder.op("sqrt", x=builder.affine(h, 1, shift)) for shift in (-0.5, 0.5)]
    total = builder.op("add", x=h, y=builder.op("mul", x=roots[0], y=roots[1]))
    return builder.affine(builder.op("log", x=total, epsilon=0.0), 1, math.log(2))


_BINARY = {"modBroadcastable": "mod", "floorDivBroadcastable": "floor_div"}


@as_program("average")
def average(builder: ProgramBuilder, params: Params, *inputs: Value) -> Value:
    total = functools.reduce(functools.partial(builder.binary, "add"), inputs)
    return builder.binary("real_div", builder.as_float(total), len(inputs))


@as_program(*_BINARY)
def binary(builder: ProgramBuilder, params: Params, left: Value, right: Value) -> Value:
    return builder.binary(_BINARY[params.kind], left, right)
