"""Writes a program as a message, and its large constants as a file of weights."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import SpecError
from mlferry.numerics.bits import packed
from mlferry.programs.builder import sanitized
from mlferry.programs.graph import Block, Operation, Value, constant_bytes
from mlferry.programs.types import (
    DTYPES,
    Array,
    DictionaryType,
    ListType,
    StateType,
    TensorType,
    TupleType,
    ValueType,
)
from mlferry.programs.values import IMMEDIATE_FIELDS
from mlferry.progress import progress_of
from mlferry.spec import mapped
from mlferry.spec.blobs import BlobStore
from mlferry.spec.package import MODEL_PATH, WEIGHTS
from mlferry.spec.proto import mil_pb2 as mil
from mlferry.text import unused

WEIGHT_FILE = f"{MODEL_PATH}/{WEIGHTS}/weight.bin"

# As in coremltools, constants of at least so many elements go into the file if they have one of
# these types; of the others from CoreML8 on. Booleans and strings stay in the message.
_STORED_LEAST = 10
_STORED = {"fp16", "fp32", "int8", "uint8"}
_STORED_SINCE_8 = {
    *("int16", "uint16", "int32", "uint32"),
    *("int4", "uint1", "uint2", "uint3", "uint4", "uint6"),
}
_BEGINNING = 1 << 12  # bytes


class ProgramWriter:
    """Writes functions whose constants share one file.

    Attributes:
        store: the file of weights; its length is 64 if it holds nothing.
    """

    def __init__(self) -> None:
        self.store = BlobStore()
        self._offsets: dict[tuple[int, str], int] = {}
        self._kept: list[Any] = []  # keeps alive the arrays whose identity `_offsets` names
        self._shared: dict[tuple[str, tuple[int, ...], int], list[int]] = {}

    def function(self, block: Block, opset: int) -> mil.Function:
        """A function as a message; unnamed values get names."""
        message = mil.Function()
        message.opset = f"CoreML{opset}"
        for value in block.inputs:
            _named(message.inputs.add(), value)
        written = _FunctionWriter(self, opset, block)
        written.block(block, message.block_specializations[message.opset], top=True)
        return message

    def value(self, value: Value, opset: int) -> mil.Value:
        """A constant as a message, stored in the file if it is large."""
        message = mil.Value()
        write_type(message.type, value.type)
        kind = value.type
        if isinstance(kind, TensorType) and self._is_stored(value, kind, opset):
            message.blobFileValue.fileName = WEIGHT_FILE
            message.blobFileValue.offset = self._offset(value, kind)
        else:
            _immediate(message, value.constant, kind)
        return message

    @staticmethod
    def _is_stored(value: Value, kind: TensorType, opset: int) -> bool:
        allowed = _STORED | _STORED_SINCE_8 if opset >= 8 else _STORED
        return kind.dtype in allowed and np.size(value.constant) >= _STORED_LEAST

    def _offset(self, value: Value, kind: TensorType) -> int:
        identity = id(value.constant), kind.dtype
        if identity in self._offsets:
            return self._offsets[identity]
        bits = DTYPES[kind.dtype].bits
        data = _bytes_of(value.constant, kind.dtype)
        # constants with equal type, shape and beginning are compared completely
        key = (
            kind.dtype,
            tuple(n or 0 for n in kind.shape or ()),
            zlib.crc32(data[:_BEGINNING].tobytes()),
        )
        alike = self._shared.setdefault(key, [])
        offset = next((at for at in alike if mapped.equal(self.store.read(at).data, data)), None)
        if offset is None:
            padding = -bits * math.prod(n or 0 for n in kind.shape or ()) % 8 if bits < 8 else 0
            offset = self.store.add(kind.dtype, data, padding)
            alike.append(offset)
        mapped.let_go(self.store.read(offset).data)
        self._offsets[identity] = offset
        self._kept.append(value.constant)
        return offset


class _FunctionWriter:
    def __init__(self, writer: ProgramWriter, opset: int, block: Block) -> None:
        self._writer, self._opset = writer, opset
        self._names: dict[Value, str] = {}  # names of constants that are written
        self._taken = {value.name for value in block.inputs}
        for each in block.all_blocks():
            self._taken |= {value.name for value in each.inputs}
            for operation in each.operations:
                self._taken |= {value.name for value in operation.outputs}

    def block(self, block: Block, message: mil.Block, *, top: bool = False) -> None:
        """Write a block.

        A constant comes before the first operation of the function's block that reads it, so that
        everything after can see it.
        """
        if not top:
            for value in block.inputs:
                _named(message.inputs.add(), value)
        for operation in progress_of(block.operations, "writing", constant_bytes(block)):
            if top:
                self._constants(operation, message)
            self._operation(operation, message.operations.add())
        for value in block.outputs:
            if value.is_constant and value not in self._names:
                self._constant(value, "output", message)
        message.outputs.extend(self._names.get(value, value.name) for value in block.outputs)

    def _constants(self, operation: Operation, message: mil.Block) -> None:
        """The constants that an operation and its blocks read."""
        for name, argument in operation.arguments.items():
            values = argument if isinstance(argument, tuple) else (argument,)
            for index, value in enumerate(values):
                if value.is_constant and value not in self._names:
                    if _is_attribute(operation, self._opset):
                        continue
                    hint = f"{_name_of(operation)}_{name}"
                    self._constant(value, f"{hint}_{index}" if len(values) > 1 else hint, message)
        for block in operation.blocks:
            for inner in block.operations:
                self._constants(inner, message)
            for value in block.outputs:
                if value.is_constant and value not in self._names:
                    self._constant(value, f"{_name_of(operation)}_output", message)

    def _constant(self, value: Value, hint: str, message: mil.Block) -> None:
        name = unused(sanitized(value.name or hint), self._taken)
        self._names[value] = name
        written = message.operations.add()
        written.type = "const"
        written.attributes["name"].CopyFrom(text(name))
        written.attributes["val"].CopyFrom(self._writer.value(value, self._opset))
        output = written.outputs.add()
        output.name = name
        write_type(output.type, value.type)

    def _operation(self, operation: Operation, message: mil.Operation) -> None:
        message.type = operation.op
        message.attributes["name"].CopyFrom(text(_name_of(operation)))
        for name, argument in operation.arguments.items():
            values = argument if isinstance(argument, tuple) else (argument,)
            if _is_attribute(operation, self._opset):
                message.attributes[name].CopyFrom(self._writer.value(values[0], self._opset))
                continue
            for value in values:
                binding = message.inputs[name].arguments.add()
                binding.name = self._names.get(value, value.name)
        for value in operation.outputs:
            _named(message.outputs.add(), value)
        for block in operation.blocks:
            self.block(block, message.blocks.add())


def _is_attribute(operation: Operation, opset: int) -> bool:
    """Whether parameters are attributes, as for compressed constants before CoreML8."""
    return operation.op.startswith("constexpr_") and opset < 8


def _name_of(operation: Operation) -> str:
    return operation.outputs[0].name if operation.outputs else sanitized(operation.source)


def _named(message: mil.NamedValueType, value: Value) -> None:
    message.name = value.name
    write_type(message.type, value.type)


def text(value: str) -> mil.Value:
    """A string as a message."""
    message = mil.Value()
    _immediate(message, np.array(value, object), TensorType("string", ()))
    write_type(message.type, TensorType("string", ()))
    return message


def write_type(message: mil.ValueType, kind: ValueType) -> None:
    """Describe a type in a message."""
    if isinstance(kind, TensorType):
        tensor = message.tensorType
        tensor.dataType = DTYPES[kind.dtype].number  # type: ignore[assignment] # an enum's number
        if kind.shape is None:
            tensor.rank = -1
            tensor.dimensions.add().unknown.variadic = True
            return
        tensor.rank = len(kind.shape)
        for extent in kind.shape:
            if extent is None:
                tensor.dimensions.add().unknown.variadic = False
            else:
                tensor.dimensions.add().constant.size = extent
    elif isinstance(kind, ListType):
        write_type(message.listType.type, kind.element)
        if kind.length is None:
            message.listType.length.unknown.variadic = False
        else:
            message.listType.length.constant.size = kind.length
    elif isinstance(kind, TupleType):
        for each in kind.types:
            write_type(message.tupleType.types.add(), each)
    elif isinstance(kind, DictionaryType):
        write_type(message.dictionaryType.keyType, kind.key)
        write_type(message.dictionaryType.valueType, kind.value)
    elif isinstance(kind, StateType):
        write_type(message.stateType.wrappedType, kind.wrapped)


def _immediate(
    message: mil.Value, constant: Array | Sequence[str] | Sequence[int], kind: ValueType
) -> None:
    if isinstance(kind, ListType):
        element = kind.element
        for each in constant:
            inner = message.immediateValue.list.values.add()
            write_type(inner.type, element)
            _immediate(inner, np.array(each, object if isinstance(each, str) else None), element)
        message.immediateValue.list.SetInParent()
        return
    if not isinstance(kind, TensorType):
        raise SpecError(f"a constant of type {kind} cannot be written")
    field = IMMEDIATE_FIELDS.get(kind.dtype, "bytes")
    tensor = message.immediateValue.tensor
    values = getattr(tensor, field)
    values.SetInParent()
    if field == "bytes":
        values.values = _bytes_of(np.asarray(constant), kind.dtype).tobytes()
    else:
        values.values.extend(np.ravel(constant).tolist())


def _bytes_of(array: Array, dtype: str) -> NDArray[np.uint8]:
    """The elements as bytes of a file; a view, if they have this form in memory."""
    kind = DTYPES[dtype]
    if kind.bits < 8:
        return np.frombuffer(packed(np.ravel(array), kind.bits), np.uint8)
    contiguous = np.ascontiguousarray(array, kind.array.newbyteorder("<"))
    return contiguous.reshape(-1).view(np.uint8)


def program_of(functions: Sequence[tuple[str, mil.Function]]) -> mil.Program:
    """A program of functions by name."""
    program = mil.Program(version=1)
    for name, function in functions:
        program.functions[name].CopyFrom(function)
    return program
