"""Renames the inputs and outputs of a program wherever they appear."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mlferry.errors import SpecError
from mlferry.programs.contents import operations_of
from mlferry.spec.proto import mil_pb2 as mil

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_@]*")


def check_name(name: str) -> None:
    """Whether a value of a program can have a name.

    Raises:
        SpecError: it cannot.
    """
    if NAME.fullmatch(name) is None:
        raise SpecError(
            f"{name!r} is no name in an ML Program: those are letters, digits and _, and begin "
            "with no digit"
        )


def value_names(program: mil.Program) -> Iterator[str]:
    """The name of every value of every function."""
    for function in program.functions.values():
        yield from (each.name for each in function.inputs)
        for block in function.block_specializations.values():
            yield from (each.name for each in block.inputs)
            for operation in operations_of(block):
                yield from (each.name for each in operation.outputs)
                for inner in operation.blocks:
                    yield from (each.name for each in inner.inputs)


def rename_value(program: mil.Program, old: str, new: str) -> None:
    """Rename a value in all functions, in place."""
    for function in program.functions.values():
        _rename(function.inputs, old, new)
        for block in function.block_specializations.values():
            _rename_in(block, old, new)


def _rename_in(block: mil.Block, old: str, new: str) -> None:
    _rename(block.inputs, old, new)
    for index, name in enumerate(block.outputs):
        if name == old:
            block.outputs[index] = new
    for operation in block.operations:
        _rename(operation.outputs, old, new)
        for argument in operation.inputs.values():
            for binding in argument.arguments:
                if binding.name == old:
                    binding.name = new
        for inner in operation.blocks:
            _rename_in(inner, old, new)


def _rename(values: Iterable[mil.NamedValueType], old: str, new: str) -> None:
    for value in values:
        if value.name == old:
            value.name = new
