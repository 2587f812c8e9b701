"""Where the tensors of an ONNX model lie: in its message, or in other files.

Large initializers stay in either file. They are mapped into memory, so that none of their bytes are
read before they are used, and the system can reclaim their memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mlferry import limits
from mlferry.errors import ModelFileError
from mlferry.numerics.shapes import Array
from mlferry.spec import mapped, weights

if TYPE_CHECKING:
    import onnx

Arrays = dict[str, Array]
"""Large initializers that stay in their files, by name."""

# The element types that NumPy has itself, whose bytes in a file are those of an array.
_PLAIN = {1: "<f4", 10: "<f2", 11: "<f8", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8"}

_LARGE = 1 << 16  # bytes from which an initializer stays in its file

# Numbers of fields: of ModelProto, of GraphProto, and three of TensorProto.
_GRAPH, _INITIALIZER, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 7, 5, 9, 13, 14


@dataclass(frozen=True)
class Message:
    """A model's message, without the bytes of its large initializers.

    Attributes:
        data: the message.
        content: the whole file, mapped; empty if nothing is left out.
        places: where the bytes of an initializer begin and end in the file, by its index.
    """

    data: bytes
    content: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    places: dict[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Message:
        """The message of a file.

        Raises:
            ModelFileError: it cannot be read, or is not a regular file.
            LimitError: it is larger than a message can be.
        """
        size = limits.check_message(path)
        if size >= _LARGE:
            try:
                with path.open("rb") as stream:
                    places: dict[int, tuple[int, int]] = {}
                    data = _without_large(stream, size, places)
                    if places:
                        return cls(data, mapped.mapped(stream, 0, (size,), np.uint8), places)
            except (OSError, ValueError):
                pass  # reading all of it says what is wrong
        return cls(limits.read_message(path))

    def initializer(self, index: int, tensor: onnx.TensorProto) -> Array | None:
        """The array of a tensor whose bytes were left out; they are put back if it is not plain."""
        if index not in self.places:
            return None
        begin, end = self.places[index]
        octets = self.content[begin:end]
        if not _is_plain(tensor, len(octets)):
            tensor.raw_data = octets.tobytes()
            return None
        return octets.view(_PLAIN[tensor.data_type]).reshape(tuple(tensor.dims))


def arrays_of(
    model: onnx.ModelProto, message: Message | None, folder: Path | None, name: str
) -> Arrays:
    """Read the tensors of other files, but only inside the model's folder.

    Args:
        model: is changed.
        message: that it was parsed from, if it comes from a file.
        folder: of the model.

    Returns:
        the large initializers, which are not read.

    Raises:
        ModelFileError: a file cannot be read, is too short, or lies elsewhere.
        LimitError: the tensors take too many bytes.
    """
    parts = _external(model, folder, name)
    arrays: Arrays = {}
    for index, tensor in enumerate(model.graph.initializer):
        arrays.pop(tensor.name, None)
        if message is not None and index in message.places:
            array = message.initializer(index, tensor)
        elif tensor.external_data and folder is not None:
            array = _External(tensor, folder.resolve(), name).mapped()
        else:
            continue
        if array is not None:
            arrays[tensor.name] = array
    for part in parts:
        if part.tensor.external_data:
            part.load()
    return arrays


def _external(model: onnx.ModelProto, folder: Path | None, name: str) -> list[_External]:
    tensors = [tensor for tensor in _tensors(model) if tensor.external_data]
    if not tensors:
        return []
    if folder is None:
        location = dict(_entries(tensors[0])).get("location")
        raise ModelFileError(
            f"{name} keeps {tensors[0].name!r} in the file {location!r}: give the model's path"
        )
    parts = [_External(tensor, folder.resolve(), name) for tensor in tensors]
    amount = sum(part.length for part in parts)
    weights.check_room(amount)
    limits.check("weights", amount, f"{name}: its tensors in other files take bytes:")
    sizes = sum({part.path: part.size for part in parts}.values())
    limits.check_growth(sizes, amount, f"{name}: its tensors in other files overlap, and take")
    return parts


def _entries(tensor: onnx.TensorProto) -> list[tuple[str, str]]:
    return [(entry.key, entry.value) for entry in tensor.external_data]


def _is_plain(tensor: onnx.TensorProto, size: int) -> bool:
    """Whether the bytes of a tensor in a file are those of an array in memory."""
    kind = _PLAIN.get(tensor.data_type)
    shape = tuple(tensor.dims)
    if kind is None or min(shape, default=1) < 0:
        return False
    return math.prod(shape) * np.dtype(kind).itemsize == size


class _External:
    """The place of a tensor's values in another file."""

    def __init__(self, tensor: onnx.TensorProto, base: Path, model: str) -> None:
        options = dict(_entries(tensor))
        self.tensor, self.model, self.location = tensor, model, options.get("location", "")
        try:
            self.path = (base / self.location).resolve()
            if not self.location or not self.path.is_relative_to(base):
                raise ModelFileError(
                    f"{model} keeps {tensor.name!r} in {self.location!r}, outside the model's "
                    "folder"
                )
            if not self.path.is_file():
                raise ModelFileError(f"cannot read {self.location} of {model}: there is no file")
            self.size = self.path.stat().st_size
            self.offset = int(options.get("offset", 0))
            self.length = int(options.get("length", self.size - self.offset))
        except (OSError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"cannot read {self.location!r} of {model}: {error}") from error
        if self.offset < 0 or self.length < 0 or self.length > self.size - self.offset:
            raise ModelFileError(f"{self.location} is too short for {tensor.name!r} of {model}")

    def mapped(self) -> Array | None:
        """The array, mapped into memory; None if it is small or has other bytes in memory."""
        if self.length < mapped.LEAST or not _is_plain(self.tensor, self.length):
            return None
        shape, kind = tuple(self.tensor.dims), _PLAIN[self.tensor.data_type]
        try:
            with self.path.open("rb") as stream:
                array = mapped.mapped(stream, self.offset, shape, kind)
        except (OSError, ValueError) as error:
            raise ModelFileError(f"cannot read {self.location} of {self.model}: {error}") from error
        self._is_here()
        return array

    def load(self) -> None:
        """Read the values into the tensor."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                self.tensor.raw_data = stream.read(self.length)
        except OSError as error:
            raise ModelFileError(f"cannot read {self.location} of {self.model}: {error}") from error
        self._is_here()

    def _is_here(self) -> None:
        del self.tensor.external_data[:]
        self.tensor.ClearField("data_location")


_HOLD_TENSORS = (
    *("GraphProto", "NodeProto", "AttributeProto", "FunctionProto"),
    *("TensorProto", "SparseTensorProto", "ModelProto", "TrainingInfoProto"),
)


def _tensors(
    message: onnx.AttributeProto
    | onnx.GraphProto
    | onnx.ModelProto
    | onnx.NodeProto
    | onnx.TensorProto,
) -> Iterator[Any]:
    """Every tensor of a model, wherever it is."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for descriptor, value in message.ListFields():
        kind = descriptor.message_type
        if kind is None or kind.name not in _HOLD_TENSORS:
            continue
        for item in [value] if hasattr(value, "DESCRIPTOR") else value:
            yield from _tensors(item)


@dataclass(frozen=True)
class _Field:
    """A field of a message in a file: its number, and where it, its value, and the next begin."""

    number: int
    is_delimited: bool
    start: int
    value: int
    stop: int


_VARINT, _FIXED_64, _DELIMITED, _FIXED_32 = 0, 1, 2, 5  # wire types
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}
_FIELDS = 1 << 20  # fields of a file that are looked at: Python takes a microsecond for each
_Change = Callable[[_Field], bytes | None]


class _Scan:
    """Reads the fields of a message in a file, and not what large ones hold."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._left = stream, _FIELDS

    def fields(self, start: int, stop: int) -> Iterator[_Field]:
        """The fields of a message.

        Raises:
            ValueError: it is damaged, has groups, or too many fields.
        """
        while start < stop:
            self._left -= 1
            if self._left < 0:
                raise ValueError("too many fields")
            self._stream.seek(start)
            number, wire_type = divmod(self._varint(), 8)
            if wire_type == _VARINT:
                self._varint()
                value = end = self._stream.tell()
            elif wire_type == _DELIMITED:
                length = self._varint()
                value = self._stream.tell()
                end = value + length
            else:
                if wire_type not in _FIXED_BYTES:
                    raise ValueError(f"wire type {wire_type}")
                value = self._stream.tell()
                end = value + _FIXED_BYTES[wire_type]
            if end > stop:
                raise ValueError("a field that is longer than its message")
            yield _Field(number, wire_type == _DELIMITED, start, value, end)
            start = end

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            octet = self._stream.read(1)
            if not octet:
                raise ValueError("cut off")
            value |= (octet[0] & 0x7F) << shift
            if octet[0] < 0x80:
                return value
        raise ValueError("a number of more than 64 bits")

    def copied(self, start: int, stop: int, change: _Change) -> bytes:
        """A message, with other bytes for those fields for which `change` gives them."""
        parts, copied_to = [], start
        for each in self.fields(start, stop):
            changed = change(each)
            if changed is not None:
                parts += [self._bytes(copied_to, each.start), changed]
                copied_to = each.stop
        return b"".join([*parts, self._bytes(copied_to, stop)])

    def _bytes(self, start: int, stop: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read(stop - start)


def _with_length(change: _Change) -> _Change:
    """The change of a field whose new value `change` gives."""

    def field_of(each: _Field) -> bytes | None:
        value = change(each)
        if value is None:
            return None
        tag = weights.varint(each.number << 3 | _DELIMITED)
        return b"".join((tag, weights.varint(len(value)), value))

    return field_of


def _without_large(stream: BinaryIO, size: int, places: dict[int, tuple[int, int]]) -> bytes:
    """The message of a model without the bytes of its large initializers.

    Args:
        size: its bytes.
        places: takes where the bytes are, by the index of the initializer.

    Raises:
        ValueError: the message is damaged, or has too many fields.
    """
    scan, count = _Scan(stream), 0

    def of_graph(each: _Field) -> bytes | None:
        nonlocal count
        if each.number != _INITIALIZER or not each.is_delimited:
            return None
        index, count = count, count + 1
        if each.stop - each.value < _LARGE:
            return None
        parts = list(scan.fields(each.value, each.stop))
        raw = [part for part in parts if part.number == _RAW_DATA]
        if len(raw) != 1 or raw[0].stop - raw[0].value < _LARGE:
            return None
        if any(part.number in (_EXTERNAL_DATA, _DATA_LOCATION) for part in parts):
            return None
        places[index] = raw[0].value, raw[0].stop
        return scan.copied(
            each.value, each.stop, lambda part: b"" if part.number == _RAW_DATA else None
        )

    def of_model(each: _Field) -> bytes | None:
        if each.number != _GRAPH or not each.is_delimited:
            return None
        return scan.copied(each.value, each.stop, _with_length(of_graph))

    return scan.copied(0, size, _with_length(of_model))
