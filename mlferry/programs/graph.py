"""Programs under construction: values, operations and blocks, before they become a message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Shape
from mlferry.programs.definitions import UNKNOWN, Operand
from mlferry.programs.types import TensorType, ValueType

Array = NDArray[Any]


@dataclass(eq=False)
class Value:
    """A value of a program.

    Attributes:
        name: of the value; "" for a constant that is named after the operation that reads it.
        type: its type.
        constant: an array, or a list of labels, if the value is known; otherwise `UNKNOWN`.
        maker: the operation that returns it; None for inputs and constants.
    """

    name: str
    type: ValueType
    constant: Any = UNKNOWN
    maker: Operation | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the value is known while the program is written."""
        return self.constant is not UNKNOWN

    @property
    def is_stored(self) -> bool:
        """Whether the value is known when the program is loaded: a constant, compressed or not."""
        return self.is_constant or (
            self.maker is not None and self.maker.op.startswith("constexpr_")
        )

    @property
    def tensor(self) -> TensorType:
        """The type of a tensor.

        Raises:
            SpecError: it is a list, a state or a dictionary.
        """
        if not isinstance(self.type, TensorType):
            raise SpecError(f"{self.name!r} is a {self.type}, not a tensor")
        return self.type

    @property
    def dtype(self) -> str:
        """The type of its elements."""
        return self.tensor.dtype

    @property
    def shape(self) -> Shape:
        """Its shape; None is an extent known only at run time.

        Raises:
            SpecError: not even its rank is known.
        """
        if self.tensor.shape is None:
            raise SpecError(f"the rank of {self.name!r} is not known")
        return self.tensor.shape

    @property
    def rank(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    @property
    def is_fixed(self) -> bool:
        """Whether all of its extents are known."""
        return self.tensor.shape is not None and None not in self.shape

    @property
    def operand(self) -> Operand:
        """The operand that the definition of an op takes for it."""
        return Operand(self.type, self.constant)

    def __repr__(self) -> str:
        suffix = " (constant)" if self.is_constant else ""
        return f"<{self.name or 'constant'}: {self.type}{suffix}>"


Argument = Value | tuple[Value, ...]


@dataclass(eq=False)
class Operation:
    """One operation.

    Attributes:
        op: what it is.
        arguments: the values of its parameters.
        outputs: what it makes.
        blocks: those of control flow.
        source: the layer from which it was made, for messages and for names.
    """

    op: str
    arguments: dict[str, Argument]
    outputs: tuple[Value, ...] = ()
    blocks: tuple[Block, ...] = ()
    source: str = ""

    def operands(self) -> Iterator[Value]:
        """Every argument of the operation."""
        for argument in self.arguments.values():
            yield from argument if isinstance(argument, tuple) else (argument,)

    def replace(self, values: Mapping[Value, Value]) -> None:
        """Replace arguments of the operation."""
        self.change(lambda value: values.get(value, value))

    def change(self, function: Callable[[Value], Value], keep: Collection[str] = ()) -> None:
        """Give the operation what a function makes of its arguments, except those to keep."""
        for name, argument in self.arguments.items():
            if name in keep:
                continue
            if isinstance(argument, tuple):
                self.arguments[name] = tuple(map(function, argument))
            else:
                self.arguments[name] = function(argument)

    def __repr__(self) -> str:
        return f"<{self.op} {[each.name for each in self.outputs]}>"


@dataclass(eq=False)
class Block:
    """A sequence of operations, each of which sees the values before it and around the block."""

    inputs: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)

    def all_operations(self) -> Iterator[Operation]:
        """The operations of the block and of the blocks inside it."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.all_operations()

    def all_blocks(self) -> Iterator[Block]:
        """The block and those inside it."""
        yield self
        for operation in self.operations:
            for block in operation.blocks:
                yield from block.all_blocks()

    def replace(self, values: Mapping[Value, Value]) -> None:
        """Replace arguments of all operations."""
        for operation in self.all_operations():
            operation.replace(values)
        for block in self.all_blocks():
            block.outputs = [values.get(each, each) for each in block.outputs]


def readers(block: Block) -> dict[Value, list[Operation]]:
    """The operations that read each value, including those of inner blocks."""
    by_value: dict[Value, list[Operation]] = {}
    for operation in block.all_operations():
        for value in operation.operands():
            by_value.setdefault(value, []).append(operation)
    return by_value


def constant_bytes(block: Block) -> int:
    """The bytes of the arrays that the operations of a block read, each counted once."""
    arrays = {
        id(value.constant): value.constant.nbytes
        for operation in block.operations
        for value in operation.operands()
        if isinstance(value.constant, np.ndarray)
    }
    return sum(arrays.values())


def names(block: Block) -> set[str]:
    """The names of all values, including those of inner blocks."""
    inputs = {value.name for each in block.all_blocks() for value in each.inputs}
    return inputs | {value.name for each in block.all_operations() for value in each.outputs}


def kept_values(block: Block) -> set[Value]:
    """The outputs of a block and of the blocks inside it."""
    return {value for each in block.all_blocks() for value in each.outputs}


def sweep(block: Block) -> None:
    """Drop operations whose values nobody reads, except those that write states."""
    for each in block.all_blocks():
        for operation in each.operations:
            for inner in operation.blocks:
                sweep(inner)
    while True:
        used = kept_values(block) | readers(block).keys()
        dropped = False
        for each in list(block.all_blocks()):
            left = [op for op in each.operations if not op.outputs or used & {*op.outputs}]
            dropped |= len(left) < len(each.operations)
            each.operations = left
        if not dropped:
            return


def constant(array: ArrayLike, dtype: str, name: str = "") -> Value:
    """A constant tensor of an element type."""
    values = np.asarray(array)
    return Value(name, TensorType(dtype, values.shape), values)


def string(text: str) -> Value:
    """A constant text."""
    return Value("", TensorType("string", ()), np.array(text, object))
