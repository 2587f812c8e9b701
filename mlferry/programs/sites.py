"""The constants of a program that may be stored in another way: `sites`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlferry.programs import compressed
from mlferry.programs.builder import evaluated
from mlferry.programs.definitions import definition_of
from mlferry.programs.graph import Block, Operation, Value, constant, readers
from mlferry.programs.parts import CompressedParts
from mlferry.programs.passes.opset import renewed
from mlferry.programs.passes.rewriting import known_at
from mlferry.programs.types import TensorType
from mlferry.spec import mapped

Floats = NDArray[np.float32]
_THRESHOLD = 2048  # a constant of more elements is a weight, as in coremltools

# The axis of outputs in the weights of an op, and the axis of inputs; otherwise they are 0 and 1.
# Those of products are exchanged if the op transposes them.
_AXES = {
    ("conv_transpose", "weight"): (1, 0),
    ("matmul", "y"): (-1, -2),
    ("matmul", "x"): (-2, -1),
}
_WEIGHTS = {"weight", "weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back", "x", "y"}


@dataclass(frozen=True)
class ProgramSite:
    """A constant of a program that may be stored in another way.

    Attributes:
        value: it.
        kind: the op that reads it.
        field: for which parameter.
        name: of what that makes.
        opset: of the program.
        readers: all operations that read it.
    """

    value: Value
    kind: str
    field: str
    name: str
    opset: int = compressed.FIRST
    readers: tuple[Operation, ...] = dataclasses.field(default=(), repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(extent or 0 for extent in self.value.shape)

    @cached_property
    def array(self) -> Floats:
        """Its values, float32."""
        return _whole(self.value, self.opset)

    def let_go(self) -> None:
        """Drop `array`, and let the system have the memory of the file that it was read from."""
        self.__dict__.pop("array", None)
        known = [self.value]
        for value in known:
            if value.maker is not None:
                known += value.maker.operands()
            elif isinstance(value.constant, np.ndarray):
                mapped.let_go(value.constant)

    @property
    def count(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether it is a weight of more than 2,048 values, as in coremltools, and not a vector."""
        return self.count > _THRESHOLD and len(self.shape) > 1 and self.field in _WEIGHTS

    @property
    def is_of_product(self) -> bool:
        """Whether it is what a product or a convolution multiplies its inputs with; of any size."""
        factor = self.field.startswith("weight") or self.kind == "matmul"
        return factor and len(self.shape) > 1

    @property
    def axis(self) -> int:
        """The axis of outputs."""
        return self._axes[0] % len(self.shape)

    @property
    def input_axis(self) -> int:
        """The axis of inputs, along which blocks go."""
        return self._axes[1] % len(self.shape)

    @property
    def _axes(self) -> tuple[int, int]:
        outputs, inputs = _AXES.get((self.kind, self.field), (0, 1))
        is_transposed = self.readers and known_at(self.readers[0], f"transpose_{self.field}", False)
        return (inputs, outputs) if is_transposed else (outputs, inputs)

    @property
    def parts(self) -> CompressedParts | None:
        """How it is stored; None for plain floats.

        Raises:
            SpecError: it is stored in a way that cannot be compressed further.
        """
        maker = self.value.maker
        if maker is None or maker.op == "constexpr_cast":
            return None
        return CompressedParts.of(renewed(maker, self.opset))

    def __str__(self) -> str:
        return f"{self.field} of {self.kind} {self.name!r}"


def sites(block: Block, opset: int) -> Iterator[ProgramSite]:
    """The float constants that operations of a function read, each once; numbers are none."""
    used = readers(block)
    for value, operations in used.items():
        kind = value.type
        if not isinstance(kind, TensorType) or kind.dtype not in ("fp16", "fp32"):
            continue
        if not kind.shape:
            continue
        maker = value.maker
        if not (value.is_constant or (maker is not None and maker.op.startswith("constexpr_"))):
            continue
        reader = operations[0]
        if reader.op.startswith("constexpr_"):
            continue
        parameter = next(n for n, a in reader.arguments.items() if value in _values(a))
        name = reader.outputs[0].name if reader.outputs else reader.source
        yield ProgramSite(value, reader.op, parameter, name, opset, tuple(operations))


def _values(argument: object) -> tuple[Value, ...]:
    return argument if isinstance(argument, tuple) else (argument,)


def _whole(value: Value, opset: int) -> Floats:
    """The values of a constant, however it is stored."""
    return np.asarray(_known(value, opset).constant, np.float32)


def _known(value: Value, opset: int) -> Value:
    """A constant, or the result of operations on constants, as a constant."""
    maker = value.maker
    if maker is None:
        return value
    arguments: dict[str, Value | tuple[Value, ...]] = {
        name: _known(argument, opset)
        for name, argument in maker.arguments.items()
        if isinstance(argument, Value)
    }
    kinds = [each.tensor for each in maker.outputs]
    results = evaluated(maker.op, opset, definition_of(maker.op, opset), arguments, kinds)
    return constant(results[maker.outputs.index(value)], value.dtype)
