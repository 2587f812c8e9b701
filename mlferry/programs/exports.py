"""The registry of functions that write ops as ONNX: an emitter, a call and operands in, values out.

A function has the name of its op, or several ops, and writes the nodes that compute what the kernel
of that op computes. Operands come by the names of parameters, as for kernels: those that an op
needs in advance as Python values, others as the names of values.

Floats of any size are computed in float32, integers of any size in int32. The walk rounds results
to the type that the program declares; a function gives values of `carrier(dtype)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.emitter import BOOL, FLOAT, INT32, INT64, Emitter
from mlferry.onnx_graph.graph import Body, Node, Port
from mlferry.programs.types import ListType, StateType, TensorType, ValueType
from mlferry.refusals import refuse
from mlferry.rooms import PROGRAMS, RoomRegistry

__all__ = [
    "EXPORTS",
    "Call",
    "body_of",
    "carrier",
    "carrier_of",
    "cast",
    "counted",
    "divided",
    "export",
    "int32",
    "inverse",
    "moved_axis",
    "scalar",
    "shape_of",
    "times",
    "values_of",
]

Export = Callable[..., Any]

EXPORTS: RoomRegistry[Export] = RoomRegistry("ONNX export of a program op", PROGRAMS, "onnx")
export = EXPORTS.register
"""Registers exports: `export("relu")`. Options:

    moves: what comes out are values that came in, so that nothing is to be rounded.
    stored: parameters that come as values although the op needs them beforehand, so that
        constants in fewer bits stay so.
    outside: the graph has the values that the op gets, and not what it makes of them.
    random: the op draws values, which differ from those of mlferry's own runtime.
"""

DOUBLE = 11  # of TensorProto
NUMBERS = {"float32": FLOAT, "int32": INT32, "int64": INT64, "bool": BOOL, "float64": DOUBLE}


def carrier(dtype: str) -> str:
    """NumPy's name of the type in which a graph computes values of an element type."""
    if dtype in ("fp16", "fp32", "fp64"):
        return "float32"
    return "bool" if dtype == "bool" else "int32"


class Cells(Protocol):
    """The states of a program that is being written."""

    def read(self, name: str) -> str:
        """The current value of a state."""

    def write(self, name: str, value: str) -> None:
        """Give a state a new value."""

    def round(self) -> None:
        """Count a round of a loop as it begins."""


@dataclass(frozen=True)
class Call:
    """One operation that is being written.

    Attributes:
        op: what it is.
        name: its own.
        opset: the number of the function's opset.
        outputs: the types that the program declares.
        types: the types of its operands by parameter.
        options: what is known in advance, as Python values, by parameter.
        value: the name of the value of a parameter, even if it is known in advance; "" if it is
            omitted.
        blocks: functions that write the nodes of its blocks: values in, values out.
        states: of the program.
        cells: the states that its blocks may write, and their types in a graph.
    """

    op: str
    name: str
    opset: int
    outputs: tuple[ValueType, ...]
    types: Mapping[str, tuple[ValueType, ...]]
    options: Mapping[str, Any]
    value: Callable[[str], str]
    blocks: Sequence[Callable[..., list[str]]] = ()
    states: Cells | None = field(default=None)
    cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The type in which the first output is computed."""
        return carrier_of(self.outputs[0])

    def carrier(self, parameter: str) -> str:
        """The type in which a graph has an operand."""
        return carrier_of(self.types[parameter][0])


def carrier_of(kind: ValueType) -> str:
    """The type in which a graph has a value; of a list, its elements."""
    while isinstance(kind, ListType | StateType):
        kind = kind.element if isinstance(kind, ListType) else kind.wrapped
    if not isinstance(kind, TensorType) or kind.dtype == "string":
        raise refuse(f"a {kind} is not an array")
    return carrier(kind.dtype)


def shape_of(kind: ValueType) -> Shape | None:
    """The shape of a value in a graph, where a list is an array."""
    if isinstance(kind, ListType):
        element = shape_of(kind.element)
        return None if element is None else (None, *element)
    return kind.shape if isinstance(kind, TensorType) else None


def cast(emitter: Emitter, x: str, dtype: str) -> str:
    """A value in another type, by NumPy's name."""
    array = emitter.known(x)
    if array is not None:
        return emitter.constant(array.astype(dtype))
    return emitter.node("Cast", x, to=NUMBERS[dtype])


def scalar(emitter: Emitter, value: float, dtype: str) -> str:
    """A scalar constant."""
    return emitter.constant(np.asarray(value).astype(dtype).reshape(()))


def values_of(emitter: Emitter, x: str) -> tuple[int, ...] | None:
    """The integers of an operand, if they are known."""
    array = emitter.known(x)
    return None if array is None else tuple(np.ravel(array).astype(np.int64).tolist())


def moved_axis(rank: int, source: int, target: int) -> list[int]:
    """The order of axes after moving one of them to another place."""
    order = [axis for axis in range(rank) if axis != source % rank]
    order.insert(target % rank, source % rank)
    return order


def inverse(order: Sequence[int]) -> list[int]:
    """The order of axes that undoes another."""
    return [list(order).index(place) for place in range(len(order))]


def times(emitter: Emitter, extent: int | str, factor: int) -> int | str:
    """An extent times a factor."""
    if isinstance(extent, int):
        return extent * factor
    return emitter.node("Mul", extent, emitter.integers([factor]))


def divided(emitter: Emitter, extent: int | str, divisor: int) -> int | str:
    """An extent divided by a divisor."""
    if isinstance(extent, int):
        return extent // divisor
    return emitter.node("Div", extent, emitter.integers([divisor]))


def counted(emitter: Emitter, count: int | str) -> str:
    """0, 1, 2 and so on: int64."""
    return emitter.integers(range(count)) if isinstance(count, int) else emitter.count_up(count)


def int32(emitter: Emitter, x: str) -> str:
    """A value of int64 as int32."""
    return cast(emitter, x, "int32")


def body_of(
    emitter: Emitter,
    nodes: list[Node],
    values: Sequence[str],
    dtypes: Sequence[str],
    inputs: Sequence[Port] = (),
) -> Body:
    """A body in which every output has a node of its own."""
    own = {output for node in nodes for output in node.outputs}
    outputs: list[str] = []
    for value in values:
        shown = value
        if value not in own or value in outputs:
            shown = emitter.fresh(f"{emitter.layer}/Identity")
            nodes.append(Node("Identity", [value], [shown], name=emitter.fresh(f"{shown}/op")))
        outputs.append(shown)
    ports = [Port(name, dtype) for name, dtype in zip(outputs, dtypes, strict=True)]
    return Body(nodes, list(inputs), ports)
