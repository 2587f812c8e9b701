"""Activations, arithmetic and comparisons, value by value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.numerics.functions import (
    OF_ONE,
    elu,
    erf,
    exp,
    gelu,
    hard_sigmoid,
    leaky,
    scaled_tanh,
    sigmoid,
    softplus,
    tanh,
)
from mlferry.spec import weights

# The ufunc behind `numpy.clip`: in place it is four times as fast as `numpy.maximum`.
clipped: Any = (getattr(np, "_core", None) or np.core).umath.clip  # NumPy 2, NumPy 1
_ZERO, _INFINITY = np.float32(0), np.float32(np.inf)


_ACTIVATIONS: dict[str, Callable[[Params, Array], Array]] = {
    "linear": lambda a, x: a.alpha * x + a.beta,
    "ReLU": lambda a, x: clipped(x, _ZERO, _INFINITY),
    "leakyReLU": lambda a, x: leaky(x, a.alpha),
    "thresholdedReLU": lambda a, x: np.where(x >= a.alpha, x, 0),
    "PReLU": lambda a, x: np.where(x >= 0, x, per_channel(a, "alpha", x) * x),
    "tanh": lambda a, x: tanh(x),
    "scaledTanh": lambda a, x: scaled_tanh(x, a.alpha, a.beta),
    "sigmoid": lambda a, x: sigmoid(x),
    "sigmoidHard": lambda a, x: hard_sigmoid(x, a.alpha, a.beta),
    "ELU": lambda a, x: elu(x, a.alpha),
    "softsign": lambda a, x: x / (1 + np.abs(x)),
    "softplus": lambda a, x: softplus(x),
    "parametricSoftplus": lambda a, x: (
        per_channel(a, "alpha", x) * softplus(per_channel(a, "beta", x) * x)
    ),
}


def per_channel(a: Params, field: str, x: Array) -> Array:
    """One value, or one per channel (axis -3)."""
    size = weights.count(getattr(a.message, field))
    return a.weight(field, (1,) if size == 1 else (x.shape[-3], 1, 1))


def function_of(a: Params) -> Callable[[Array], Array]:
    """The function that an `ActivationParams` message describes."""
    kind = a.which("NonlinearityType") or "linear"
    return functools.partial(_ACTIVATIONS[kind], getattr(a, kind))


@kernel("activation")
def activation(params: Params, x: Array) -> Array:
    return function_of(params)(x)


_UNARY: dict[str, Callable[[Params, Array], Array]] = {
    "SQRT": lambda params, x: np.sqrt(x),
    "RSQRT": lambda params, x: 1 / np.sqrt(x + params.epsilon),
    "INVERSE": lambda params, x: 1 / (x + params.epsilon),
    "POWER": lambda params, x: np.power(x, params.alpha),
    "EXP": lambda params, x: exp(x),
    "LOG": lambda params, x: np.log(x),
    "ABS": lambda params, x: np.abs(x),
    "THRESHOLD": lambda params, x: np.maximum(x, params.alpha),
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
def gelu_layer(params: Params, x: Array) -> Array:
    return gelu(x, params.mode)


@kernel("erf")
def erf_layer(params: Params, x: Array) -> Array:
    return erf(x)


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    **OF_ONE,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "logicalNot": lambda x: x == 0,
}
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
    """With one input, the second operand is `alpha`."""
    return _COMPARISONS[params.kind](
        left, np.full((), params.alpha, np.float32) if right is None else right
    )


_WITH_NUMBER: dict[str, Callable[[Array, Any], Array]] = {"add": np.add, "multiply": np.multiply}


@kernel(*_WITH_NUMBER)
def with_number(params: Params, *inputs: Array) -> Array:
    """With one input, `alpha` is the other."""
    others = inputs if len(inputs) > 1 else (*inputs, np.float32(params.alpha))
    return functools.reduce(_WITH_NUMBER[params.kind], others)


@kernel("average")
def average(params: Params, *inputs: Array) -> Array:
    return functools.reduce(np.add, inputs) / np.float32(len(inputs))
