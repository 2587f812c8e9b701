"""Activations, arithmetic and comparisons, value by value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import Emitter
from mlferry.spec import weights


def affine(e: Emitter, x: str, scale: float, shift: float) -> str:
    """scale * x + shift, without what changes nothing."""
    y = x if scale == 1 else e.node("Mul", x, e.number(scale))
    return y if shift == 0 else e.node("Add", y, e.number(shift))


def _per_channel(e: Emitter, a: Params, field: str, x: str) -> str:
    """One value, or one a channel (axis -3)."""
    size = weights.count(getattr(a.message, field))
    return weight(e, a, field, (1,) if size == 1 else (e.shape(x)[-3] or size, 1, 1))


def _thresholded(e: Emitter, a: Any, x: str) -> str:
    kept = e.node("GreaterOrEqual", x, e.number(a.alpha))
    return e.node("Where", kept, x, e.number(0))


def _parametric_softplus(e: Emitter, a: Params, x: str) -> str:
    inner = e.node("Mul", _per_channel(e, a, "beta", x), x)
    return e.node("Mul", _per_channel(e, a, "alpha", x), e.node("Softplus", inner))


ACTIVATIONS: dict[str, Callable[[Emitter, Any, str], str]] = {
    "linear": lambda e, a, x: affine(e, x, a.alpha, a.beta),
    "ReLU": lambda e, a, x: e.node("Relu", x),
    "leakyReLU": lambda e, a, x: e.node("LeakyRelu", x, alpha=a.alpha),
    "thresholdedReLU": _thresholded,
    "PReLU": lambda e, a, x: e.node("PRelu", x, _per_channel(e, a, "alpha", x)),
    "tanh": lambda e, a, x: e.node("Tanh", x),
    "scaledTanh": lambda e, a, x: affine(
        e, e.node("Tanh", affine(e, x, a.beta, 0)), a.alpha, 0
    ),
    "sigmoid": lambda e, a, x: e.node("Sigmoid", x),
    "sigmoidHard": lambda e, a, x: e.node("HardSigmoid", x, alpha=a.alpha, beta=a.beta),
    "ELU": lambda e, a, x: e.node("Elu", x, alpha=a.alpha),
    "softsign": lambda e, a, x: e.node("Softsign", x),
    "softplus": lambda e, a, x: e.node("Softplus", x),
    "parametricSoftplus": _parametric_softplus,
}  # fmt: skip


@op("activation")
def activation(e: Emitter, p: Params, x: str) -> str:
    kind = p.which("NonlinearityType") or "linear"
    return ACTIVATIONS[kind](e, getattr(p, kind), x)


_UNARY: dict[str, Callable[[Emitter, Params, str], str]] = {
    "SQRT": lambda e, p, x: e.node("Sqrt", x),
    "RSQRT": lambda e, p, x: e.node("Reciprocal", e.node("Sqrt", affine(e, x, 1, p.epsilon))),
    "INVERSE": lambda e, p, x: e.node("Reciprocal", affine(e, x, 1, p.epsilon)),
    "POWER": lambda e, p, x: e.node("Pow", x, e.number(p.alpha)),
    "EXP": lambda e, p, x: e.node("Exp", x),
    "LOG": lambda e, p, x: e.node("Log", x),
    "ABS": lambda e, p, x: e.node("Abs", x),
    "THRESHOLD": lambda e, p, x: e.node("Max", x, e.number(p.alpha)),
}


@op("unary")
def unary(e: Emitter, p: Params, x: str) -> str:
    return _UNARY[p.type](e, p, affine(e, x, p.scale, p.shift))


@op("clip")
def clip(e: Emitter, p: Params, x: str) -> str:
    return e.node("Clip", x, e.number(p.minVal), e.number(p.maxVal))


@op("clampedReLU")
def clamped_relu(e: Emitter, p: Params, x: str) -> str:
    return e.node("Min", e.node("LeakyRelu", x, alpha=p.alpha), e.number(p.beta))


@op("gelu")
def gelu(e: Emitter, p: Params, x: str) -> str:
    if p.mode == "SIGMOID_APPROXIMATION":
        return e.node("Mul", x, e.node("Sigmoid", affine(e, x, 1.702, 0)))
    if p.mode == "TANH_APPROXIMATION":
        cube = e.node("Mul", e.node("Mul", x, e.node("Mul", x, x)), e.number(0.044715))
        inner = affine(e, e.node("Add", x, cube), math.sqrt(2 / math.pi), 0)
        gate = affine(e, e.node("Tanh", inner), 1, 1)
    else:
        gate = affine(e, e.node("Erf", e.node("Div", x, e.number(math.sqrt(2)))), 1, 1)
    return affine(e, e.node("Mul", x, gate), 0.5, 0)


_FUNCTIONS = {
    "ceil": "Ceil", "floor": "Floor", "sign": "Sign", "round": "Round", "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "tanh": "Tanh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf",
}  # fmt: skip
_REDUCERS = {
    "add": "Add", "addBroadcastable": "Add", "multiply": "Mul", "multiplyBroadcastable": "Mul",
    "max": "Max", "maxBroadcastable": "Max", "min": "Min", "minBroadcastable": "Min",
}  # fmt: skip
_BINARY = {
    "subtractBroadcastable": "Sub", "divideBroadcastable": "Div", "powBroadcastable": "Pow",
}  # fmt: skip
_LOGICAL = {"logicalOr": "Or", "logicalXor": "Xor", "logicalAnd": "And"}
_COMPARISONS = {
    "equal": "Equal", "lessThan": "Less", "lessEqual": "LessOrEqual", "greaterThan": "Greater",
    "greaterEqual": "GreaterOrEqual",
}  # fmt: skip


@op(*_FUNCTIONS)
def function(e: Emitter, p: Params, x: str) -> str:
    return e.node(_FUNCTIONS[p.kind], x)


@op("exp2")
def exp2(e: Emitter, p: Params, x: str) -> str:
    return e.node("Pow", e.number(2), x)


@op(*_REDUCERS)
def reducer(e: Emitter, p: Params, *inputs: str) -> str:
    """With one input, `add` and `multiply` take `alpha` as the other."""
    if len(inputs) == 1 and p.kind in ("add", "multiply"):
        return affine(e, inputs[0], *((1, p.alpha) if p.kind == "add" else (p.alpha, 0)))
    return functools.reduce(functools.partial(e.node, _REDUCERS[p.kind]), inputs)


@op("average")
def average(e: Emitter, p: Params, *inputs: str) -> str:
    return e.node("Mean", *inputs)


@op(*_BINARY)
def binary(e: Emitter, p: Params, left: str, right: str) -> str:
    return e.node(_BINARY[p.kind], left, right)


def _remainder(e: Emitter, left: str, right: str) -> str:
    """The remainder with the sign of the divisor; ONNX has that of the dividend for floats."""
    rest = e.node("Mod", left, right, fmod=1)
    signs = e.node("Less", e.node("Mul", e.node("Sign", rest), right), e.number(0))
    return e.node("Where", signs, e.node("Add", rest, right), rest)


@op("modBroadcastable")
def mod(e: Emitter, p: Params, left: str, right: str) -> str:
    return _remainder(e, left, right)


@op("floorDivBroadcastable")
def floor_div(e: Emitter, p: Params, left: str, right: str) -> str:
    """Whole, as what the remainder leaves is divided; by zero it is the plain quotient."""
    quotient = e.node("Div", e.node("Sub", left, _remainder(e, left, right)), right)
    by_zero = e.node("Equal", right, e.number(0))
    return e.node("Where", by_zero, e.node("Div", left, right), e.node("Round", quotient))


@op(*_LOGICAL)
def logical(e: Emitter, p: Params, left: str, right: str) -> str:
    return e.from_flag(e.node(_LOGICAL[p.kind], e.flag(left), e.flag(right)))


@op("logicalNot")
def logical_not(e: Emitter, p: Params, x: str) -> str:
    return e.from_flag(e.node("Not", e.flag(x)))


def _other(e: Emitter, p: Params, inputs: tuple[str, ...]) -> str:
    """The other side of a comparison: `alpha` where there is one input."""
    return inputs[0] if inputs else e.number(float(np.float32(p.alpha)))


@op(*_COMPARISONS)
def comparison(e: Emitter, p: Params, left: str, *right: str) -> str:
    return e.from_flag(e.node(_COMPARISONS[p.kind], left, _other(e, p, right)))


@op("notEqual")
def not_equal(e: Emitter, p: Params, left: str, *right: str) -> str:
    return e.from_flag(e.node("Not", e.node("Equal", left, _other(e, p, right))))
