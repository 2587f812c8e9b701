"""Reads the message of a function as values, operations and blocks that can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter

from mlferry.errors import SpecError, context
from mlferry.programs.arguments import name_of
from mlferry.programs.definitions import OPSETS
from mlferry.programs.graph import Argument, Block, Operation, Value
from mlferry.programs.types import type_of
from mlferry.programs.values import Weights, value_of
from mlferry.spec.proto import mil_pb2 as mil


def read_function(message: mil.Function, weights: Weights) -> tuple[Block, int]:
    """The block of a function, and the number of its opset.

    Constants stored in a file are views of it.

    Args:
        message: the function, in which `validate` finds nothing.
        weights: the files of its constants.

    Raises:
        SpecError: the opset is unknown, or an operation reads a value that does not exist.
        ModelFileError: constants are not where the message says.
    """
    opset = OPSETS.get(message.opset)
    if opset is None or message.opset not in message.block_specializations:
        raise SpecError(f"the opset {message.opset!r} is not known here, or has no block")
    block = Block()
    names: dict[str, Value] = {}
    for each in message.inputs:
        names[each.name] = Value(each.name, type_of(each.type))
        block.inputs.append(names[each.name])
    _read(message.block_specializations[message.opset], block, names, weights)
    return block, opset


def _read(message: mil.Block, block: Block, outer: Mapping[str, Value], weights: Weights) -> None:
    names = dict(outer)
    for each in message.inputs:
        names[each.name] = Value(each.name, type_of(each.type))
        block.inputs.append(names[each.name])
    for operation in message.operations:
        with context(f"reading {operation.type} {name_of(operation)!r}"):
            _operation(operation, block, names, weights)
    block.outputs = [_named(name, names) for name in message.outputs]


def _operation(
    message: mil.Operation, block: Block, names: dict[str, Value], weights: Weights
) -> None:
    outputs = tuple(Value(each.name, type_of(each.type)) for each in message.outputs)
    if message.type == "const":
        (value,) = outputs
        value.constant = value_of(message.attributes["val"], weights)
        names[value.name] = value
        return
    arguments: dict[str, Argument] = {}
    for name, argument in sorted(message.inputs.items(), key=itemgetter(0)):
        values = tuple(_bound(binding, names, weights) for binding in argument.arguments)
        arguments[name] = values if len(values) != 1 else values[0]
    for name, attribute in sorted(message.attributes.items(), key=itemgetter(0)):
        if name != "name":
            arguments[name] = _literal(attribute, weights)
    inner = []
    for each in message.blocks:
        inner.append(Block())
        _read(each, inner[-1], names, weights)
    operation = Operation(message.type, arguments, outputs, tuple(inner), name_of(message))
    for value in outputs:
        value.maker = operation
        names[value.name] = value
    block.operations.append(operation)


def _bound(binding: mil.Argument.Binding, names: Mapping[str, Value], weights: Weights) -> Value:
    if binding.WhichOneof("binding") == "value":
        return _literal(binding.value, weights)
    return _named(binding.name, names)


def _literal(message: mil.Value, weights: Weights) -> Value:
    return Value("", type_of(message.type), value_of(message, weights))


def _named(name: str, names: Mapping[str, Value]) -> Value:
    if name not in names:
        raise SpecError(f"nothing makes {name!r}")
    return names[name]
