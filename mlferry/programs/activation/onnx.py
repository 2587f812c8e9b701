"""Activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable

from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, export


@export("relu", moves=True)
def relu(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node("Relu", x)


@export("relu6", moves=True)
def relu6(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node("Clip", x, emitter.number(0), emitter.number(6))


@export("sigmoid", "softplus", "softsign")
def plain(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node(call.op.capitalize(), x)


@export("silu")
def silu(emitter: Emitter, call: Call, x: str) -> str:
    return emitter.node("Mul", x, emitter.node("Sigmoid", x))


_BENT = {"elu": "Elu", "leaky_relu": "LeakyRelu"}


@export(*_BENT)
def bent(emitter: Emitter, call: Call, x: str, alpha: float) -> str:
    return emitter.node(_BENT[call.op], x, alpha=float(alpha))


@export("thresholded_relu", moves=True)
def thresholded_relu(emitter: Emitter, call: Call, x: str, alpha: float) -> str:
    """x from alpha on; ONNX's node of that name excludes alpha itself."""
    enough = emitter.node("GreaterOrEqual", x, emitter.number(alpha))
    return emitter.node("Where", enough, x, emitter.number(0))


@export("clamped_relu")
def clamped_relu(emitter: Emitter, call: Call, x: str, alpha: float, beta: float) -> str:
    y = emitter.node("LeakyRelu", x, alpha=float(alpha))
    return emitter.node("Min", y, emitter.number(beta))


@export("linear_activation")
def linear_activation(emitter: Emitter, call: Call, x: str, alpha: float, beta: float) -> str:
    y = emitter.node("Mul", x, emitter.number(alpha))
    return emitter.node("Add", y, emitter.number(beta))


@export("scaled_tanh")
def scaled_tanh(emitter: Emitter, call: Call, x: str, alpha: float, beta: float) -> str:
    inner = emitter.node("Tanh", emitter.node("Mul", x, emitter.number(beta)))
    return emitter.node("Mul", inner, emitter.number(alpha))


@export("sigmoid_hard")
def sigmoid_hard(emitter: Emitter, call: Call, x: str, alpha: float, beta: float) -> str:
    return emitter.node("HardSigmoid", x, alpha=float(alpha), beta=float(beta))


def _exact(emitter: Emitter, x: str) -> str:
    inner = emitter.node("Erf", emitter.node("Div", x, emitter.number(math.sqrt(2))))
    y = emitter.node("Mul", x, emitter.node("Add", inner, emitter.number(1)))
    return emitter.node("Mul", y, emitter.number(0.5))


def _by_tanh(emitter: Emitter, x: str) -> str:
    cube = emitter.node("Mul", x, emitter.node("Mul", x, x))
    inner = emitter.node("Add", x, emitter.node("Mul", cube, emitter.number(0.044715)))
    inner = emitter.node("Tanh", emitter.node("Mul", inner, emitter.number(math.sqrt(2 / math.pi))))
    y = emitter.node("Mul", x, emitter.node("Add", inner, emitter.number(1)))
    return emitter.node("Mul", y, emitter.number(0.5))


def _by_sigmoid(emitter: Emitter, x: str) -> str:
    inner = emitter.node("Mul", x, emitter.number(1.702))
    return emitter.node("Mul", x, emitter.node("Sigmoid", inner))


_GELU: dict[str, Callable[[Emitter, str], str]] = {
    "EXACT": _exact,
    "TANH_APPROXIMATION": _by_tanh,
    "SIGMOID_APPROXIMATION": _by_sigmoid,
}


@export("gelu")
def gelu(emitter: Emitter, call: Call, x: str, mode: str) -> str:
    return _GELU[mode](emitter, x)


@export("softmax")
def softmax(emitter: Emitter, call: Call, x: str, axis: int) -> str:
    return emitter.node("Softmax", x, axis=axis)


def _of_channels(emitter: Emitter, call: Call, parameter: str, x: str) -> str:
    """One value for each channel (axis 1)."""
    return emitter.reshape(call.value(parameter), [-1, *[1] * (emitter.rank(x) - 2)])


@export("prelu")
def prelu(emitter: Emitter, call: Call, x: str, alpha: object) -> str:
    return emitter.node("PRelu", x, _of_channels(emitter, call, "alpha", x))


@export("softplus_parametric")
def softplus_parametric(emitter: Emitter, call: Call, x: str, alpha: object, beta: object) -> str:
    inner = emitter.node("Mul", x, _of_channels(emitter, call, "beta", x))
    inner = emitter.node("Softplus", inner)
    return emitter.node("Mul", inner, _of_channels(emitter, call, "alpha", x))
