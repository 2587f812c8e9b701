"""Activations, arithmetic and comparisons, value by value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import Emitter
from mlferry.spec import weights


def _per_channel(emitter: Emitter, a: Params, field: str, x: str) -> str:
    """One value, or one per channel (axis -3)."""
    size = weights.count(getattr(a.message, field))
    return weight(emitter, a, field, (1,) if size == 1 else (emitter.shape(x)[-3] or size, 1, 1))


def _thresholded(emitter: Emitter, a: Params, x: str) -> str:
    remaining = emitter.node("GreaterOrEqual", x, emitter.number(a.alpha))
    return emitter.node("Where", remaining, x, emitter.number(0))


def _parametric_softplus(emitter: Emitter, a: Params, x: str) -> str:
    inner = emitter.node("Mul", _per_channel(emitter, a, "beta", x), x)
    return emitter.node(
        "Mul", _per_channel(emitter, a, "alpha", x), emitter.node("Softplus", inner)
    )


ACTIVATIONS: dict[str, Callable[[Emitter, Any, str], str]] = {
    "linear": lambda emitter, a, x: emitter.affine(x, a.alpha, a.beta),
    "ReLU": lambda emitter, a, x: emitter.node("Relu", x),
    "leakyReLU": lambda emitter, a, x: emitter.node("LeakyRelu", x, alpha=a.alpha),
    "thresholdedReLU": _thresholded,
    "PReLU": lambda emitter, a, x: emitter.node("PRelu", x, _per_channel(emitter, a, "alpha", x)),
    "tanh": lambda emitter, a, x: emitter.node("Tanh", x),
    "scaledTanh": lambda emitter, a, x: emitter.affine(
        emitter.node("Tanh", emitter.affine(x, a.beta, 0)), a.alpha, 0
    ),
    "sigmoid": lambda emitter, a, x: emitter.node("Sigmoid", x),
    "sigmoidHard": lambda emitter, a, x: emitter.node("HardSigmoid", x, alpha=a.alpha, beta=a.beta),
    "ELU": lambda emitter, a, x: emitter.node("Elu", x, alpha=a.alpha),
    "softsign": lambda emitter, a, x: emitter.node("Softsign", x),
    "softplus": lambda emitter, a, x: emitter.node("Softplus", x),
    "parametricSoftplus": _parametric_softplus,
}


@op("activation")
def activation(emitter: Emitter, params: Params, x: str) -> str:
    kind = params.which("NonlinearityType") or "linear"
    return ACTIVATIONS[kind](emitter, getattr(params, kind), x)


_UNARY: dict[str, Callable[[Emitter, Params, str], str]] = {
    "SQRT": lambda emitter, params, x: emitter.node("Sqrt", x),
    "RSQRT": lambda emitter, params, x: emitter.node(
        "Reciprocal", emitter.node("Sqrt", emitter.affine(x, 1, params.epsilon))
    ),
    "INVERSE": lambda emitter, params, x: emitter.node(
        "Reciprocal", emitter.affine(x, 1, params.epsilon)
    ),
    "POWER": lambda emitter, params, x: emitter.node("Pow", x, emitter.number(params.alpha)),
    "EXP": lambda emitter, params, x: emitter.node("Exp", x),
    "LOG": lambda emitter, params, x: emitter.node("Log", x),
    "ABS": lambda emitter, params, x: emitter.node("Abs", x),
    "THRESHOLD": lambda emitter, params, x: emitter.node("Max", x, emitter.number(params.alpha)),
}


@op("unary")
def unary(emitter: Emitter, params: Params, x: str) -> str:
    return _UNARY[params.type](emitter, params, emitter.affine(x, params.scale, params.shift))


@op("clip")
def clip(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("Clip", x, emitter.number(params.minVal), emitter.number(params.maxVal))


@op("clampedReLU")
def clamped_relu(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node(
        "Min", emitter.node("LeakyRelu", x, alpha=params.alpha), emitter.number(params.beta)
    )


@op("gelu")
def gelu(emitter: Emitter, params: Params, x: str) -> str:
    if params.mode == "SIGMOID_APPROXIMATION":
        return emitter.node("Mul", x, emitter.node("Sigmoid", emitter.affine(x, 1.702, 0)))
    if params.mode == "TANH_APPROXIMATION":
        cube = emitter.node(
            "Mul", emitter.node("Mul", x, emitter.node("Mul", x, x)), emitter.number(0.044715)
        )
        inner = emitter.affine(emitter.node("Add", x, cube), math.sqrt(2 / math.pi), 0)
        gate = emitter.affine(emitter.node("Tanh", inner), 1, 1)
    else:
        gate = emitter.affine(
            emitter.node("Erf", emitter.node("Div", x, emitter.number(math.sqrt(2)))), 1, 1
        )
    return emitter.affine(emitter.node("Mul", x, gate), 0.5, 0)


@op("asinh", "acosh")
def inverse_hyperbolic(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.unary(params.kind, x)


@op("exp2")
def exp2(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("Pow", emitter.number(2), x)


@op("average")
def average(emitter: Emitter, params: Params, *inputs: str) -> str:
    return emitter.node("Mean", *inputs)


def _remainder(emitter: Emitter, left: str, right: str) -> str:
    """The remainder with the sign of the divisor; ONNX has that of the dividend for floats."""
    rest = emitter.node("Mod", left, right, fmod=1)
    signs = emitter.node(
        "Less", emitter.node("Mul", emitter.node("Sign", rest), right), emitter.number(0)
    )
    return emitter.node("Where", signs, emitter.node("Add", rest, right), rest)


@op("modBroadcastable")
def mod(emitter: Emitter, params: Params, left: str, right: str) -> str:
    return _remainder(emitter, left, right)


@op("floorDivBroadcastable")
def floor_div(emitter: Emitter, params: Params, left: str, right: str) -> str:
    """Exact, as the dividend without its remainder is divided; by zero, the plain quotient."""
    quotient = emitter.node(
        "Div", emitter.node("Sub", left, _remainder(emitter, left, right)), right
    )
    by_zero = emitter.node("Equal", right, emitter.number(0))
    return emitter.node(
        "Where", by_zero, emitter.node("Div", left, right), emitter.node("Round", quotient)
    )
