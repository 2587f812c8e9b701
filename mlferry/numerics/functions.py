"""Functions of float32 values that several ops and layers share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_HALF = np.float32(0.5)
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


_AT_A_TIME = 1 << 14  # how many values stay in the cache from one pass to the next


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """The logistic function, without overflow."""
    y = np.asarray(np.multiply(x, _HALF, out=out))
    np.tanh(y, out=y)
    np.multiply(y, _HALF, out=y)
    return np.add(y, _HALF, out=y)


def erf(x: Array) -> Array:
    """The error function, to 4e-7."""
    flat = np.ravel(x)
    result = np.empty_like(flat)
    for start in range(0, flat.size, _AT_A_TIME):
        part = np.clip(flat[start : start + _AT_A_TIME], -_ERF_END, _ERF_END)
        square = part * part
        part *= _polynomial(_ERF_P, square)
        part /= _polynomial(_ERF_Q, square)
        np.clip(part, -1, 1, out=result[start : start + _AT_A_TIME])
    return result.reshape(np.shape(x))


def _polynomial(coefficients: Array, x: Array) -> Array:
    """A polynomial by Horner's rule; the lowest power comes first."""
    *others, second, first = coefficients
    total = x * first
    total += second
    for coefficient in reversed(others):
        total *= x
        total += coefficient
    return total


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    """A straight line, clipped to 0 and 1."""
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


def gelu(x: Array, mode: str) -> Array:
    """x times the cumulative normal distribution of x; "EXACT", or an approximation."""
    if mode == "TANH_APPROXIMATION":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + np.tanh(inner))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(1.702 * x)
    return 0.5 * x * (1 + erf(x / np.float32(math.sqrt(2))))


def softmax_along(x: Array, axis: int) -> Array:
    """exp(x) over its sum along an axis, without overflow."""
    y = x - x.max(axis=axis, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y
