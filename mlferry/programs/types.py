"""The types of values in ML Programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Shape, show
from mlferry.spec.proto import mil_pb2 as mil

Array = NDArray[Any]
Scalar = bool | int | float | str
Entries = int | tuple[int, ...]
"""A constant vector of integers or flags, as functions of ops take it; a scalar counts as one."""
Known = Scalar | tuple[int, ...] | Array
"""A constant as functions of ops take it."""
Constant: TypeAlias = (
    "Array | list[Constant] | tuple[Constant, ...] | dict[bool | int | float | str, Constant]"
)
"""A constant as it is stored in a file."""


class Dtype(NamedTuple):
    """A type of elements.

    Attributes:
        number: in messages.
        array: NumPy's type for them; elements of less than a byte take a byte each.
        bits: of one stored element; 0 for strings.
    """

    number: int
    array: np.dtype[Any]
    bits: int


DTYPES = {
    "bool": Dtype(mil.BOOL, np.dtype(np.bool_), 8),
    "string": Dtype(mil.STRING, np.dtype(object), 0),
    "fp16": Dtype(mil.FLOAT16, np.dtype(np.float16), 16),
    "fp32": Dtype(mil.FLOAT32, np.dtype(np.float32), 32),
    "fp64": Dtype(mil.FLOAT64, np.dtype(np.float64), 64),
    "int8": Dtype(mil.INT8, np.dtype(np.int8), 8),
    "int16": Dtype(mil.INT16, np.dtype(np.int16), 16),
    "int32": Dtype(mil.INT32, np.dtype(np.int32), 32),
    "int64": Dtype(mil.INT64, np.dtype(np.int64), 64),
    "uint8": Dtype(mil.UINT8, np.dtype(np.uint8), 8),
    "uint16": Dtype(mil.UINT16, np.dtype(np.uint16), 16),
    "uint32": Dtype(mil.UINT32, np.dtype(np.uint32), 32),
    "uint64": Dtype(mil.UINT64, np.dtype(np.uint64), 64),
    "int4": Dtype(mil.INT4, np.dtype(np.int8), 4),
    "uint1": Dtype(mil.UINT1, np.dtype(np.uint8), 1),
    "uint2": Dtype(mil.UINT2, np.dtype(np.uint8), 2),
    "uint3": Dtype(mil.UINT3, np.dtype(np.uint8), 3),
    "uint4": Dtype(mil.UINT4, np.dtype(np.uint8), 4),
    "uint6": Dtype(mil.UINT6, np.dtype(np.uint8), 6),
}
_NAMES = {dtype.number: name for name, dtype in DTYPES.items()}
FLOATS = frozenset({"fp16", "fp32"})


@dataclass(frozen=True)
class TensorType:
    """Elements of one type in a shape; a scalar has the shape ().

    Attributes:
        dtype: a name in `DTYPES`.
        shape: None for an extent that varies; None if even the rank varies.
    """

    dtype: str
    shape: Shape | None

    def __str__(self) -> str:
        return f"{self.dtype} {show(self.shape)}"


@dataclass(frozen=True)
class ListType:
    """Elements that are written one by one, or a list of labels.

    Attributes:
        element: their type.
        length: the number of elements; None if it varies.
    """

    element: ValueType
    length: int | None

    def __str__(self) -> str:
        return f"list of {'?' if self.length is None else self.length} {self.element}"


@dataclass(frozen=True)
class TupleType:
    """Values of several types."""

    types: tuple[ValueType, ...]

    def __str__(self) -> str:
        return f"tuple of {', '.join(map(str, self.types))}"


@dataclass(frozen=True)
class DictionaryType:
    """Keys to values."""

    key: ValueType
    value: ValueType

    def __str__(self) -> str:
        return f"dictionary of {self.key} to {self.value}"


@dataclass(frozen=True)
class StateType:
    """A state, which lasts from one prediction to the next."""

    wrapped: ValueType

    def __str__(self) -> str:
        return f"state of {self.wrapped}"


ValueType = TensorType | ListType | TupleType | DictionaryType | StateType

_DEEPEST = 16


def type_of(message: mil.ValueType, deep: int = 0) -> ValueType:
    """The type that a message describes.

    Raises:
        SpecError: it is of an unknown kind, or contradicts itself.
    """
    kind = message.WhichOneof("type")
    if deep > _DEEPEST:
        raise SpecError(f"a type is nested in more than {_DEEPEST} levels")
    if kind == "tensorType":
        return tensor_type(message.tensorType)
    if kind == "listType":
        element = type_of(message.listType.type, deep + 1)
        return ListType(element, _extent(message.listType.length))
    if kind == "tupleType":
        return TupleType(tuple(type_of(inner, deep + 1) for inner in message.tupleType.types))
    if kind == "dictionaryType":
        keys, values = message.dictionaryType.keyType, message.dictionaryType.valueType
        return DictionaryType(type_of(keys, deep + 1), type_of(values, deep + 1))
    if kind == "stateType":
        return StateType(type_of(message.stateType.wrappedType, deep + 1))
    raise SpecError("a value has no type, or one of a newer format")


def tensor_type(message: mil.TensorType) -> TensorType:
    """The type of a tensor; see `type_of`."""
    return _tensor_type(message.SerializeToString())


@lru_cache(1024)
def _tensor_type(data: bytes) -> TensorType:
    message = mil.TensorType.FromString(data)
    dtype = _NAMES.get(message.dataType)
    if dtype is None:
        raise SpecError(f"elements of the type number {message.dataType} are not known here")
    dimensions = message.dimensions
    if any(d.unknown.variadic for d in dimensions if d.WhichOneof("dimension") == "unknown"):
        return TensorType(dtype, None)
    if message.rank != len(dimensions):
        raise SpecError(f"a type of rank {message.rank} has {len(dimensions)} dimensions")
    return TensorType(dtype, tuple(map(_extent, dimensions)))


def _extent(message: mil.Dimension) -> int | None:
    return message.constant.size if message.WhichOneof("dimension") == "constant" else None


def compatible(one: Shape | None, two: Shape | None) -> bool:
    """Whether two shapes may be equal; an extent that varies may have any size."""
    if one is None or two is None:
        return True
    return len(one) == len(two) and all(
        a == b or None in (a, b) for a, b in zip(one, two, strict=True)
    )


def is_tensor(kind: ValueType, dtypes: Sequence[str] | frozenset[str]) -> bool:
    """Whether a type is a tensor with one of these element types."""
    return isinstance(kind, TensorType) and kind.dtype in dtypes
