"""Functions of each value, and of values in pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.numerics import functions
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.types import DTYPES

_UNARY: dict[str, Callable[[Array], Array]] = {
    **functions.OF_ONE,
    "abs": np.abs,
    "erf": functions.erf,
    "exp": functions.exp,
    "logical_not": np.logical_not,
    "sqrt": np.sqrt,
    "square": np.square,
}
_SHIFTED: dict[str, Callable[[Array], Array]] = {
    "inverse": lambda x: 1 / x,
    "log": np.log,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "real_div": np.true_divide, "floor_div": np.floor_divide,
    "mod": np.mod, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor, "equal": np.equal, "not_equal": np.not_equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "less": np.less,
    "less_equal": np.less_equal,
}  # fmt: skip
_EXACT = {"abs", "ceil", "floor", "round", "sign", "maximum", "minimum"}


@kernel(*(_UNARY.keys() & _EXACT), exact=True)
@kernel(*(_UNARY.keys() - _EXACT))
def unary(call: Call, x: Array) -> Array:
    return _UNARY[call.op](x)


@kernel(*_SHIFTED)
def shifted(call: Call, x: Array, epsilon: float) -> Array:
    """Of x + epsilon, so that it is defined for 0."""
    return _SHIFTED[call.op](x + np.float32(epsilon))


@kernel("clip")
def clip(call: Call, x: Array, alpha: float, beta: float) -> Array:
    return np.clip(x, np.float32(alpha), np.float32(beta))


@kernel("threshold")
def threshold(call: Call, x: Array, alpha: float) -> Array:
    return np.maximum(x, np.asarray(alpha, x.dtype))


@kernel("cast")
def cast(call: Call, x: Array, dtype: str) -> Array:
    """Fractions are truncated towards 0; every value but 0 is true."""
    if dtype in ("fp16", "fp32"):
        return x.astype(np.float32)
    return x.astype(DTYPES[dtype].array)


@kernel(*(_BINARY.keys() & _EXACT), exact=True)
@kernel(*(_BINARY.keys() - _EXACT))
def binary(call: Call, x: Array, y: Array) -> Array:
    return _BINARY[call.op](x, y)


@kernel("pow")
def power(call: Call, x: Array, y: Array) -> Array:
    """Integers may have negative powers; the fraction is dropped."""
    if x.dtype.kind == "i":
        return np.trunc(np.power(x.astype(np.float64), y)).astype(x.dtype)
    return np.power(x, y)
