"""How passes search and change a program."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.programs.builder import CHANGING, inferred
from mlferry.programs.definitions import definition_of
from mlferry.programs.graph import (
    Argument,
    Array,
    Block,
    Operation,
    Value,
    kept_values,
    names,
    readers,
)
from mlferry.programs.types import Known, TensorType
from mlferry.text import unused


class Rewriter:
    """A program in which operations are being replaced.

    Args:
        root: the block of the function.
        opset: its number.
    """

    def __init__(self, root: Block, opset: int) -> None:
        self.root, self.opset = root, opset
        self._readers = readers(root)
        self._kept = kept_values(root)
        self._seen: dict[tuple[int, Any], Operation] = {}
        # They no longer compute what they did when they were recorded.
        self._changed: set[Operation] = set()
        self._blocks = {op: block for block in root.all_blocks() for op in block.operations}

    def readers_of(self, value: Value) -> list[Operation]:
        """Every operation that reads a value."""
        return list(dict.fromkeys(self._readers.get(value, [])))

    def only_reader(self, value: Value) -> Operation | None:
        """The only operation that reads a value, in the block that makes it."""
        readers = self.readers_of(value)
        if len(readers) != 1 or value in self._kept or value.maker is None:
            return None
        return readers[0] if self._blocks.get(readers[0]) is self._blocks.get(value.maker) else None

    def is_given(self, value: Value) -> bool:
        """Whether a value is the output of a block."""
        return value in self._kept

    def is_read_once(self, value: Value) -> bool:
        """Whether only one operation reads a value."""
        return self.only_reader(value) is not None

    def follows(self, operation: Operation, *ops: str) -> Operation | None:
        """The only operation that reads the output of another, if it is one of these ops."""
        reader = self.only_reader(operation.outputs[0])
        return reader if reader is not None and reader.op in ops else None

    def made_by(self, value: Value, *ops: str) -> Operation | None:
        """The operation that makes a value, if it is one of these ops."""
        return value.maker if value.maker is not None and value.maker.op in ops else None

    def set(self, operation: Operation, op: str, **arguments: Argument | None) -> None:
        """Replace an operation by another with the same outputs, whose types may differ.

        Raises:
            SpecError: its arguments do not fit.
        """
        self._forget(operation)
        self._changed.add(operation)
        operation.op = op
        operation.arguments = {k: v for k, v in arguments.items() if v is not None}
        self._remember(operation)
        kinds = inferred(op, definition_of(op, self.opset), operation.arguments)
        for value, kind in zip(operation.outputs, kinds, strict=True):
            if isinstance(kind, TensorType) and isinstance(value.type, TensorType):
                shape = value.type.shape if kind.shape is None else kind.shape
                value.type = TensorType(kind.dtype, shape)

    def put(self, operation: Operation, name: str, value: Value) -> None:
        """Replace an argument of an operation; a value that nobody reads any more is dropped."""
        before = value_at(operation, name)
        operation.arguments[name] = value
        if before is not None:
            self._readers[before].remove(operation)
            if not self._readers[before]:
                del self._readers[before]
        self._readers.setdefault(value, []).append(operation)
        self._changed.add(operation)

    def take_over(self, operation: Operation, last: Operation) -> None:
        """Give an operation the output of the last one of a chain after it, and drop the chain.

        The operation moves to the place of the last one, so that all of its arguments come before
        it.
        """
        self._changed.add(operation)
        block = self._blocks.pop(last)
        block.operations.remove(operation)
        self._forget(last)
        block.operations[block.operations.index(last)] = operation
        operation.outputs = last.outputs
        for value in operation.outputs:
            value.maker = operation

    def before(self, place: Operation, op: str, **arguments: Argument) -> Value:
        """Insert an operation before another, and return its output."""
        (value,) = self.all_before(place, op, **arguments)
        return value

    def all_before(self, place: Operation, op: str, **arguments: Argument) -> tuple[Value, ...]:
        """Insert an operation before another, and return its outputs."""
        values: list[Value] = []
        used = names(self.root)
        for kind in inferred(op, definition_of(op, self.opset), arguments):
            values.append(Value(unused(f"{place.outputs[0].name}_{op}", used), kind))
        operation = Operation(op, dict(arguments), tuple(values), source=place.source)
        for value in values:
            value.maker = operation
        block = self._blocks[place]
        block.operations.insert(block.operations.index(place), operation)
        self._blocks[operation] = block
        self._remember(operation)
        return operation.outputs

    def remake(self, operation: Operation, outputs: Sequence[Value]) -> None:
        """Replace an operation by values that were just made; its names stay."""
        for old, new in zip(operation.outputs, outputs, strict=True):
            maker = new.maker
            assert maker is not None
            maker.outputs = tuple(old if value is new else value for value in maker.outputs)
            old.maker, old.type = maker, new.type
        self._forget(operation)
        self._blocks.pop(operation).operations.remove(operation)

    def is_repeated(self, operation: Operation) -> bool:
        """Whether an earlier operation computes the same; its values then replace both."""
        if operation.blocks or operation.op in CHANGING or not operation.outputs:
            return False
        if any(value in self._kept for value in operation.outputs):
            return False
        block, key = self._blocks[operation], _key(operation)
        first = self._seen.setdefault((id(block), key), operation)
        if first is operation or operation in self._changed:
            return False
        if first in self._changed:
            self._seen[id(block), key] = operation
            return False
        for old, new in zip(operation.outputs, first.outputs, strict=True):
            self.replace(old, new)
        self._forget(operation)
        self._blocks.pop(operation).operations.remove(operation)
        return True

    def replace(self, old: Value, new: Value) -> None:
        """Replace a value everywhere."""
        self.root.replace({old: new})
        self._readers.setdefault(new, []).extend(self._readers.pop(old, []))
        if old in self._kept:
            self._kept.discard(old)
            self._kept.add(new)

    def is_there(self, operation: Operation) -> bool:
        """Whether an operation has not been replaced."""
        return operation in self._blocks

    def _forget(self, operation: Operation) -> None:
        for value in operation.operands():
            readers = self._readers.get(value, [])
            if operation in readers:
                readers.remove(operation)

    def _remember(self, operation: Operation) -> None:
        for value in operation.operands():
            self._readers.setdefault(value, []).append(operation)


_SMALL = 64


def _key(operation: Operation) -> Any:
    """A key that is equal for operations that compute the same."""
    return operation.op, tuple(
        (name, tuple(map(_identity, argument if isinstance(argument, tuple) else (argument,))))
        for name, argument in operation.arguments.items()
    )


def _identity(value: Value) -> Any:
    array = value.constant
    if isinstance(array, np.ndarray) and array.size <= _SMALL:
        content = tuple(array.reshape(-1).tolist()) if array.dtype == object else array.tobytes()
        return value.dtype, array.shape, content
    return _Held(array) if isinstance(array, np.ndarray) else value


class _Held:
    """A key for the identity of an array, without keeping the array."""

    def __init__(self, array: Array) -> None:
        self._array, self._hash = weakref.ref(array), id(array)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Held)
            and self._array() is not None
            and self._array() is other._array()
        )


def value_at(operation: Operation, name: str) -> Value | None:
    """The argument of an operation for a parameter of one value."""
    argument = operation.arguments.get(name)
    return argument if isinstance(argument, Value) else None


def known_at(operation: Operation, name: str, default: Known | None = None) -> Any:
    """A constant argument of an operation, as a Python value; the default if there is none."""
    value = value_at(operation, name)
    if value is None or not value.is_constant:
        return default
    array = np.asarray(value.constant)
    return array.item() if array.ndim == 0 else tuple(array.tolist())


def array_at(operation: Operation, name: str) -> Array | None:
    """A constant array that is an argument of an operation."""
    value = value_at(operation, name)
    return value.constant if value is not None and value.is_constant else None


def other_operand(operation: Operation, value: Value) -> Value | None:
    """The other of the operands x and y."""
    one, two = value_at(operation, "x"), value_at(operation, "y")
    return two if one is value else one if two is value else None


def per_channel(array: Array, rank: int, channels: int, axis: int = 1) -> Array | None:
    """A value for each channel, from an array that broadcasts so over a value; None for others."""
    if array.size == 1:
        return np.full(channels, array.reshape(-1)[0], array.dtype)
    spread_shape = [1] * rank
    spread_shape[axis] = channels
    shape = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(-1) if list(shape) == spread_shape else None


def matches(value: float | None, number: float) -> bool:
    """Whether a constant is a number, up to the rounding of its file."""
    return value is not None and bool(np.isclose(value, number, rtol=1e-3, atol=0))
