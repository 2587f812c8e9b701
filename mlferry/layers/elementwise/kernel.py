"""Activations, arithmetic and comparisons, value by value."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.spec import weights

# The ufunc behind `numpy.clip`: in place it is four times as fast as `numpy.maximum`.
clipped: Any = (getattr(np, "_core", None) or np.core).umath.clip  # NumPy 2, NumPy 1
_ZERO, _HALF, _INFINITY = np.float32(0), np.float32(0.5), np.float32(np.inf)
# erf(x) / x is P(x^2) / Q(x^2) up to 4, where erf is 1 in float32: coefficients of a rational fit
# of degrees 5 and 5, weighted to the least largest error (2.5e-8 before rounding).
_ERF_END = np.float32(4)
_ERF_P = np.array(
    [
        1.1283791393781542,
        0.19354148030997984,
        0.05310127806731575,
        0.003883195320526176,
        0.0002845633484390156,
        1.9868177038086396e-06,
    ],
    np.float32,
)
_ERF_Q = np.array(
    [
        1.0,
        0.5048542272382941,
        0.11534852562026046,
        0.01520694853239893,
        0.0011855368443761379,
        3.7420413972095994e-05,
    ],
    np.float32,
)
_AT_A_TIME = 1 << 14  # values that stay in the cache from one pass to the next


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """The logistic function, without overflow."""
    y = np.asarray(np.multiply(x, _HALF, out=out))
    np.tanh(y, out=y)
    np.multiply(y, _HALF, out=y)
    return np.add(y, _HALF, out=y)


def erf(x: Array) -> Array:
    """The error function, to 4e-7."""
    flat = np.ravel(x)
    made = np.empty_like(flat)
    for start in range(0, flat.size, _AT_A_TIME):
        part = np.clip(flat[start : start + _AT_A_TIME], -_ERF_END, _ERF_END)
        square = part * part
        part *= _polynomial(_ERF_P, square)
        part /= _polynomial(_ERF_Q, square)
        np.clip(part, -1, 1, out=made[start : start + _AT_A_TIME])
    return made.reshape(np.shape(x))


def _polynomial(coefficients: Array, x: Array) -> Array:
    """By Horner's rule; the lowest power comes first."""
    *others, second, first = coefficients
    total = x * first
    total += second
    for coefficient in reversed(others):
        total *= x
        total += coefficient
    return total


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    """A straight line, cut off at 0 and 1."""
    return np.clip(alpha * x + beta, 0, 1)


def scaled_tanh(x: Array, alpha: float, beta: float) -> Array:
    """alpha * tanh(beta * x)."""
    return np.float32(alpha) * np.tanh(np.float32(beta) * x)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.logaddexp(np.float32(0), x)


def leaky(x: Array, alpha: float) -> Array:
    """x, and alpha * x below 0."""
    if alpha == 0:
        return np.maximum(x, 0)
    return (np.maximum if alpha <= 1 else np.minimum)(x, np.float32(alpha) * x)


def elu(x: Array, alpha: float) -> Array:
    """x, and alpha * (exp(x) - 1) below 0."""
    below = np.expm1(np.minimum(x, 0))
    below *= np.float32(alpha)
    return np.add(below, np.maximum(x, 0), out=below)


_ACTIVATIONS: dict[str, Callable[[Params, Array], Array]] = {
    "linear": lambda a, x: a.alpha * x + a.beta,
    "ReLU": lambda a, x: clipped(x, _ZERO, _INFINITY),
    "leakyReLU": lambda a, x: leaky(x, a.alpha),
    "thresholdedReLU": lambda a, x: np.where(x >= a.alpha, x, 0),
    "PReLU": lambda a, x: np.where(x >= 0, x, _per_channel(a, "alpha", x) * x),
    "tanh": lambda a, x: np.tanh(x),
    "scaledTanh": lambda a, x: scaled_tanh(x, a.alpha, a.beta),
    "sigmoid": lambda a, x: sigmoid(x),
    "sigmoidHard": lambda a, x: hard_sigmoid(x, a.alpha, a.beta),
    "ELU": lambda a, x: elu(x, a.alpha),
    "softsign": lambda a, x: x / (1 + np.abs(x)),
    "softplus": lambda a, x: softplus(x),
    "parametricSoftplus": lambda a, x: (
        _per_channel(a, "alpha", x) * softplus(_per_channel(a, "beta", x) * x)
    ),
}


def _per_channel(a: Params, field: str, x: Array) -> Array:
    """One value, or one a channel (axis -3)."""
    size = weights.count(getattr(a.message, field))
    return a.weight(field, (1,) if size == 1 else (x.shape[-3], 1, 1))


def function_of(a: Params) -> Callable[[Array], Array]:
    """What an `ActivationParams` message describes."""
    kind = a.which("NonlinearityType") or "linear"
    return functools.partial(_ACTIVATIONS[kind], getattr(a, kind))


@kernel("activation")
def activation(params: Params, x: Array) -> Array:
    return function_of(params)(x)


_UNARY: dict[str, Callable[[Params, Array], Array]] = {
    "SQRT": lambda p, x: np.sqrt(x),
    "RSQRT": lambda p, x: 1 / np.sqrt(x + p.epsilon),
    "INVERSE": lambda p, x: 1 / (x + p.epsilon),
    "POWER": lambda p, x: np.power(x, p.alpha),
    "EXP": lambda p, x: np.exp(x),
    "LOG": lambda p, x: np.log(x),
    "ABS": lambda p, x: np.abs(x),
    "THRESHOLD": lambda p, x: np.maximum(x, p.alpha),
}


@kernel("unary")
def unary(params: Params, x: Array) -> Array:
    """The input is scaled and shifted first."""
    return _UNARY[params.type](
        params, params.scale * x + params.shift if params.scale != 1 or params.shift else x
    )


@kernel("clip")
def clip(params: Params, x: Array) -> Array:
    return np.clip(x, params.minVal, params.maxVal)


@kernel("clampedReLU")
def clamped_relu(params: Params, x: Array) -> Array:
    return np.where(x >= 0, np.minimum(x, params.beta), np.minimum(params.alpha * x, params.beta))


@kernel("gelu")
def gelu(params: Params, x: Array) -> Array:
    if params.mode == "TANH_APPROXIMATION":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))
    if params.mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(1.702 * x)
    return 0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))


@kernel("erf")
def erf_layer(params: Params, x: Array) -> Array:
    return erf(x)


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "ceil": np.ceil, "floor": np.floor, "sign": np.sign, "round": np.round, "exp2": np.exp2,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "logicalNot": lambda x: x == 0,
}  # fmt: skip
_REDUCERS: dict[str, Callable[[Array, Array], Array]] = {
    "max": np.maximum,
    "min": np.minimum,
    "addBroadcastable": np.add,
    "multiplyBroadcastable": np.multiply,
    "maxBroadcastable": np.maximum,
    "minBroadcastable": np.minimum,
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "subtractBroadcastable": np.subtract,
    "divideBroadcastable": np.divide,
    "floorDivBroadcastable": np.floor_divide,
    "modBroadcastable": np.mod,
    "powBroadcastable": np.power,
    "logicalOr": lambda a, b: (a != 0) | (b != 0),
    "logicalXor": lambda a, b: (a != 0) ^ (b != 0),
    "logicalAnd": lambda a, b: (a != 0) & (b != 0),
}
_COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "equal": np.equal,
    "notEqual": np.not_equal,
    "lessThan": np.less,
    "lessEqual": np.less_equal,
    "greaterThan": np.greater,
    "greaterEqual": np.greater_equal,
}


@kernel(*_FUNCTIONS)
def function(params: Params, x: Array) -> Array:
    return _FUNCTIONS[params.kind](x)


@kernel(*_REDUCERS)
def reducer(params: Params, *inputs: Array) -> Array:
    return functools.reduce(_REDUCERS[params.kind], inputs)


@kernel(*_BINARY)
def binary(params: Params, left: Array, right: Array) -> Array:
    return _BINARY[params.kind](left, right)


@kernel(*_COMPARISONS)
def comparison(params: Params, left: Array, right: Array | None = None) -> Array:
    """With one input, the other side is `alpha`."""
    return _COMPARISONS[params.kind](
        left, np.full((), params.alpha, np.float32) if right is None else right
    )


@kernel("add")
def add(params: Params, *inputs: Array) -> Array:
    """With one input, `alpha` is added."""
    return (
        inputs[0] + np.float32(params.alpha)
        if len(inputs) == 1
        else functools.reduce(np.add, inputs)
    )


@kernel("multiply")
def multiply(params: Params, *inputs: Array) -> Array:
    """With one input, it is multiplied by `alpha`."""
    if len(inputs) == 1:
        return inputs[0] * np.float32(params.alpha)
    return functools.reduce(np.multiply, inputs)


@kernel("average")
def average(params: Params, *inputs: Array) -> Array:
    return functools.reduce(np.add, inputs) / np.float32(len(inputs))
