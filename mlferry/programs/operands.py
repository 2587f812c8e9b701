"""Whether what an op is given fits its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mlferry.programs.definitions import UNKNOWN, Definition, Operand, Parameter
from mlferry.programs.types import TensorType


def default_operand(parameter: Parameter) -> Operand | None:
    """The operand of a parameter that is left out; None where nothing is computed with it."""
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
    """What is wrong with the operands of one parameter."""
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
    """Parameters that share a variable, and are not of one type of elements."""
    for variable in definition.variables:
        seen: dict[str, str] = {}
        for name, parameter in definition.parameters.items():
            if parameter.dtypes != variable:
                continue
            for operand in operands.get(name, ()):
                if isinstance(operand.type, TensorType):
                    seen.setdefault(operand.type.dtype, name)
        if len(seen) > 1:
            shown = ", ".join(f"{name} {dtype}" for dtype, name in seen.items())
            yield f"its parameters differ in the type of their elements: {shown}"
