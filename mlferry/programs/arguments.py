"""The arguments of an operation of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.programs.definitions import Parameter
from mlferry.programs.types import Constant, Scalar
from mlferry.spec.proto import mil_pb2 as mil


@dataclass(frozen=True)
class Argument:
    """The argument of an operation for one parameter.

    Attributes:
        names: of values, None for a constant.
        constants: the constants, in the form that kernels take.
        many: whether the kernel takes a list.
    """

    names: tuple[str | None, ...]
    constants: tuple[Any, ...]
    many: bool

    @property
    def is_constant(self) -> bool:
        """Whether the argument is known before the program runs."""
        return not any(self.names)


def arguments_of(
    message: mil.Operation,
    parameters: Mapping[str, Parameter],
    values: Mapping[str, Any],
    decode: Callable[[mil.Value], Any],
) -> dict[str, Argument]:
    """The arguments of an operation by parameter.

    Args:
        parameters: those of its op.
        values: the values that are constants, by name.
        decode: reads a constant.

    Raises:
        SpecError: a parameter is missing, unknown, or has too many values.
    """
    by_name = {}
    for name, argument in sorted(message.inputs.items(), key=itemgetter(0)):
        bindings: list[tuple[str | None, Any]] = []
        for binding in argument.arguments:
            if binding.WhichOneof("binding") == "value":
                bindings.append((None, decode(binding.value)))
            elif binding.name in values:
                bindings.append((None, values[binding.name]))
            else:
                bindings.append((binding.name, None))
        by_name[name] = bindings
    for name, value in sorted(message.attributes.items(), key=itemgetter(0)):
        if name != "name":
            by_name[name] = [(None, decode(value))]
    unknown = by_name.keys() - parameters.keys()
    if unknown:
        raise SpecError(
            f"it has no parameter {sorted(unknown)[0]!r}; it has {', '.join(parameters)}"
        )
    missing = [n for n, parameter in parameters.items() if parameter.required and n not in by_name]
    if missing:
        raise SpecError(f"the parameter {missing[0]!r} is missing")
    return {name: _argument(parameters[name], by_name[name]) for name in by_name}


def _argument(parameter: Parameter, bindings: list[tuple[str | None, Any]]) -> Argument:
    if not bindings or (len(bindings) > 1 and not parameter.many):
        raise SpecError(f"a parameter has {len(bindings)} values")
    names = tuple(name for name, _ in bindings)
    values = tuple(
        plain(value) if parameter.constant and name is None else value for name, value in bindings
    )
    return Argument(names, values, parameter.many)


def plain(value: Constant) -> Constant | Scalar:
    """A constant as a Python value, if it is a scalar or a vector of indices or flags."""
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 0:
        scalar: Scalar = value.item()
        return scalar
    return tuple(value.tolist()) if value.ndim == 1 and value.dtype in _INDICES else value


_INDICES = (np.dtype(np.int32), np.dtype(np.uint32), np.dtype(np.int64), np.dtype(np.bool_))


def name_of(message: mil.Operation) -> str:
    """The name of an operation in messages."""
    value = message.attributes.get("name")
    if value is not None and value.immediateValue.tensor.strings.values:
        return value.immediateValue.tensor.strings.values[0]
    return message.outputs[0].name if message.outputs else ""
