"""Values of eight bits that stand for others."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import axis_of
from mlferry.programs.definitions import (
    INT32,
    STRING,
    Operand,
    Operands,
    const,
    need,
    op_kind,
    option,
)
from mlferry.programs.types import TensorType

_BYTES = {"Q": frozenset({"int8", "uint8"})}


def _fits(operands: Operands) -> None:
    """Scale and zero point are single values, or one for each entry of an axis."""
    x = operands.input
    for name in ("scale", "zero_point"):
        operand: Operand | None = getattr(operands, name)
        if operand is None or operand.rank == 0:
            continue
        axis = operands.axis
        if axis is None and operand.shape != (1,):
            raise SpecError(f"{name} is {operand.type}; with a vector axis is needed")
        if axis is not None and operand.shape[0] != x.shape[axis_of(axis.known, x.rank)]:
            raise SpecError(f"{name} is {operand.type}, along axis {axis.known} of {x.type}")


@op_kind(
    "quantize",
    since=7,
    variables=_BYTES,
    input=need("T"),
    scale=const("T"),
    zero_point=option("Q"),
    axis=option(INT32),
    output_dtype=const(STRING),
)
def quantize(operands: Operands) -> TensorType:
    """clip(round(input / scale) + zero_point)"""
    if operands.output_dtype.known not in _BYTES["Q"]:
        raise SpecError(f"output_dtype is {operands.output_dtype.known!r}; int8 or uint8")
    _fits(operands)
    return TensorType(operands.output_dtype.known, operands.input.shape)


@op_kind(
    "dequantize",
    since=7,
    variables=_BYTES,
    input=need("Q"),
    scale=const("T"),
    zero_point=option("Q"),
    axis=option(INT32),
)
def dequantize(operands: Operands) -> TensorType:
    """scale * (input - zero_point)"""
    _fits(operands)
    return TensorType(operands.scale.dtype, operands.input.shape)
