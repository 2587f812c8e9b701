"""Activation functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.numerics import functions
from mlferry.programs.kernels import Array, Call, kernel

_PLAIN: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": functions.sigmoid,
    "silu": lambda x: x * functions.sigmoid(x),
    "softplus": functions.softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
}
_EXACT = {"relu", "relu6"}
_BENT: dict[str, Callable[[Array, float], Array]] = {
    "elu": functions.elu,
    "leaky_relu": functions.leaky,
    "thresholded_relu": lambda x, alpha: np.where(x >= np.float32(alpha), x, 0),
}
_SCALED: dict[str, Callable[[Array, float, float], Array]] = {
    "clamped_relu": lambda x, alpha, beta: np.minimum(functions.leaky(x, alpha), beta),
    "linear_activation": lambda x, alpha, beta: np.float32(alpha) * x + np.float32(beta),
    "scaled_tanh": functions.scaled_tanh,
    "sigmoid_hard": functions.hard_sigmoid,
}


@kernel(*_EXACT, exact=True)
@kernel(*(_PLAIN.keys() - _EXACT))
def plain(call: Call, x: Array) -> Array:
    return _PLAIN[call.op](x)


@kernel(*_BENT)
def bent(call: Call, x: Array, alpha: float) -> Array:
    return _BENT[call.op](x, alpha)


@kernel(*_SCALED)
def scaled(call: Call, x: Array, alpha: float, beta: float) -> Array:
    return _SCALED[call.op](x, alpha, beta)


@kernel("gelu")
def gelu(call: Call, x: Array, mode: str) -> Array:
    return functions.gelu(x, mode)


@kernel("softmax")
def softmax(call: Call, x: Array, axis: int) -> Array:
    return functions.softmax_along(x, axis)


def _of_channels(values: Array, x: Array) -> Array:
    return np.asarray(values, np.float32).reshape(-1, *[1] * (x.ndim - 2))


@kernel("prelu")
def prelu(call: Call, x: Array, alpha: Array) -> Array:
    return np.where(x >= 0, x, _of_channels(alpha, x) * x)


@kernel("softplus_parametric")
def softplus_parametric(call: Call, x: Array, alpha: Array, beta: Array) -> Array:
    return _of_channels(alpha, x) * functions.softplus(_of_channels(beta, x) * x)
