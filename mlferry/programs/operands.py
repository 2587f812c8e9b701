"""Checks that the arguments of an op fit its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mlferry.programs.definitions import UNKNOWN, Definition, Operand, Parameter
from mlferry.programs.types import TensorType


def default_operand(parameter: Parameter) -> Operand | None:
    """The operand of an omitted parameter; None if it then has no effect."""
    value = parameter.default
    if value is None:
        return None
    if isinstance(value, bool):
        return Operand(TensorType("bool", ()), value)
    if isinstance(value, str):
        return Operand(TensorType("string", ()), value)
    return Operand(TensorType("int32" if isinstance(value, int) else "fp32", ()), value)


def misfits(
    name: str, parameter: Parameter, operands: Sequence[Operand], definition: Definition
) -> Iterator[str]:
    """The problems of the operands of one parameter."""
    allowed = parameter.dtypes
    if isinstance(allowed, str):
        allowed = definition.variables[allowed]
    for operand in operands:
        if parameter.constant and operand.value is UNKNOWN:
            yield f"{name} is computed while the program runs; it has to be a constant"
        if not parameter.tensor:
            continue
        if not isinstance(operand.type, TensorType):
            yield f"{name} is {operand.type}, not a tensor"
        elif operand.type.dtype not in allowed:
            possible = ", ".join(sorted(allowed))
            yield f"{name} is {operand.type}; possible are {possible}"


def mixtures(definition: Definition, operands: Mapping[str, Sequence[Operand]]) -> Iterator[str]:
    """The problems of parameters that share a variable but differ in element type."""
    for variable in definition.variables:
        seen: dict[str, str] = {}
        for name, parameter in definition.parameters.items():
            if parameter.dtypes != variable:
                continue
            for operand in operands.get(name, ()):
                if isinstance(operand.type, TensorType):
                    seen.setdefault(operand.type.dtype, name)
        if len(seen) > 1:
            text = ", ".join(f"{name} {dtype}" for dtype, name in seen.items())
            yield f"its parameters differ in the type of their elements: {text}"
