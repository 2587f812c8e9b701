"""Functions of float32 values that several ops and layers share."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mlferry.compiled import is_active
from mlferry.compiled.polynomials import ERF
from mlferry.lanes import in_rows
from mlferry.numerics.shapes import Array

_HALF = np.float32(0.5)
_ERF = tuple(map(np.float32, ERF))
_AT_A_TIME = 1 << 14  # how many values stay in the cache from one pass to the next


def _is_compiled(x: Array) -> bool:
    """Whether the compiled kernels are used for an array."""
    return is_active() and isinstance(x, np.ndarray) and x.dtype == np.float32 and x.size > 0


def _applied(name: str, x: Array, out: Array | None = None) -> Array:
    from mlferry.compiled.functions import applied

    return applied(name, x, out)


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """The logistic function, without overflow."""
    if _is_compiled(x) and (out is None or out.flags.c_contiguous):
        return _applied("sigmoid", x, out)
    y = np.asarray(np.multiply(x, _HALF, out=out))
    np.tanh(y, out=y)
    np.multiply(y, _HALF, out=y)
    return np.add(y, _HALF, out=y)


def tanh(x: Array, out: Array | None = None) -> Array:
    """The hyperbolic tangent."""
    if _is_compiled(x) and (out is None or out.flags.c_contiguous):
        return _applied("tanh", x, out)
    return np.tanh(x, out=out)


# Functions of single values, by the names that layers and ops have in common.
OF_ONE: dict[str, Callable[[Array], Array]] = {
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp2": np.exp2,
    "floor": np.floor,
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "tan": np.tan,
    "tanh": tanh,
}


def exp(x: Array) -> Array:
    """The exponential function."""
    return _applied("exp", x) if _is_compiled(x) else np.exp(x)


def erf(x: Array) -> Array:
    """The error function, to 2.5e-7."""
    if _is_compiled(x):
        return _applied("erf", x)
    flat = np.ravel(x)
    result = np.empty_like(flat)
    squares = np.empty(min(flat.size, _AT_A_TIME), flat.dtype)
    first, second, *others = _ERF
    for start in range(0, flat.size, _AT_A_TIME):
        part, total = flat[start : start + _AT_A_TIME], result[start : start + _AT_A_TIME]
        square = np.multiply(part, part, out=squares[: part.size])
        np.multiply(square, first, out=total)
        total += second
        for coefficient in others:
            total *= square
            total += coefficient
        total *= part
        np.tanh(total, out=total)
    return result.reshape(np.shape(x))


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
    if mode == "EXACT" and _is_compiled(x):
        return _applied("gelu", x)
    if mode == "SIGMOID_APPROXIMATION":
        y = sigmoid(np.float32(1.702) * x)
        return np.multiply(y, x, out=y)
    if mode == "TANH_APPROXIMATION":
        y = np.square(x)
        y *= np.float32(0.044715)
        y += np.float32(1)
        y *= x
        y *= np.float32(math.sqrt(2 / math.pi))
        np.tanh(y, out=y)
    else:
        y = erf(x * np.float32(math.sqrt(0.5)))
    y += np.float32(1)
    y *= x
    return np.multiply(y, _HALF, out=y)


def softmax_along(x: Array, axis: int) -> Array:
    """exp(x) over its sum along an axis, without overflow."""
    columns = x.shape[axis]
    if _is_compiled(x) and math.prod(x.shape[axis % x.ndim :]) == columns:
        from mlferry.compiled.rows import softmax_rows

        rows = np.ascontiguousarray(x).reshape(-1, columns)
        result = np.empty_like(rows)
        in_rows(lambda part: softmax_rows(rows[part], result[part]), rows)
        return result.reshape(x.shape)
    y = x - x.max(axis=axis, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


def log_sum_exp(x: Array, axis: tuple[int, ...] | None, keepdims: bool) -> Array:
    """The logarithm of the sum of powers of e, over some axes or all."""
    top = x.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # the difference of infinities is not a number
    total: Array = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return total if keepdims else np.squeeze(total, axis=axis)
