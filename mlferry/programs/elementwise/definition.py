"""Functions of each value, and of values in pairs."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import broadcast
from mlferry.programs.definitions import (
    BOOL,
    NUMBERS,
    SMALL,
    STRING,
    Operands,
    apart,
    const,
    need,
    newer,
    op_kind,
    option,
)
from mlferry.programs.types import TensorType

_CAST = NUMBERS | BOOL


@apart(7, "rsqrt", "log", "inverse")
@op_kind(
    *("acos", "asin", "atan", "atanh", "cos", "cosh", "sin", "sinh", "tan", "tanh"),
    *("ceil", "erf", "exp", "floor", "round", "sqrt"),
    x=need("T"),
)
@op_kind("abs", "exp2", "sign", "square", variables={"T": NUMBERS}, x=need("T"))
@op_kind("logical_not", x=need(BOOL))
@op_kind("clip", x=need("T"), alpha=const("T"), beta=const("T"))
@op_kind("threshold", variables={"T": NUMBERS}, x=need("T"), alpha=const("T"))
@op_kind("inverse", x=need("T"), epsilon=option("T", 1e-4))
@op_kind("log", x=need("T"), epsilon=option("T", 1e-45))
@op_kind("rsqrt", x=need("T"), epsilon=option("T", 1e-12))
def same(operands: Operands) -> TensorType:
    """The output has the type of the input."""
    return operands.x.tensor


@newer(7, "clip")
def clip(operands: Operands) -> TensorType:
    if operands.alpha.known >= operands.beta.known:
        raise SpecError(f"alpha {operands.alpha.known} is not below beta {operands.beta.known}")
    return operands.x.tensor


@newer(7, "cast", x=need(_CAST | SMALL))
@op_kind("cast", x=need(_CAST), dtype=const(STRING))
def cast(operands: Operands) -> TensorType:
    dtype = operands.dtype.known
    if dtype not in _CAST | SMALL:
        raise SpecError(f"dtype is {dtype!r}; possible are {', '.join(sorted(_CAST | SMALL))}")
    return TensorType(dtype, operands.x.tensor.shape)


@op_kind(
    *("add", "sub", "mul", "maximum", "minimum", "real_div", "floor_div", "mod", "pow"),
    variables={"T": NUMBERS},
    x=need("T"),
    y=need("T"),
)
@op_kind("logical_and", "logical_or", "logical_xor", x=need(BOOL), y=need(BOOL))
def arithmetic(operands: Operands) -> TensorType:
    return TensorType(operands.x.dtype, broadcast(operands.x.shape, operands.y.shape))


@op_kind(
    *("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"),
    variables={"T": NUMBERS},
    x=need("T"),
    y=need("T"),
)
def comparison(operands: Operands) -> TensorType:
    return TensorType("bool", broadcast(operands.x.shape, operands.y.shape))
