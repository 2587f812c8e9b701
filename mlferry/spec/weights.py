"""Read and write `WeightParams`: float32, float16, 1 to 8 bit linear and lookup table, int8.

Every tool that touches weights goes through this module. Arrays go into a message as packed
bytes and come out through its serialized bytes: both are tens of times faster than the
repeated field itself.

Quantized values are stored as one stream of bits, most significant bit first, in row-major
order of the weight; the last byte is filled with zeros.

While a program is written, the network that it is made of can have more bytes than one message
holds: inside of `outside()` a large weight stays in a file, and the message holds a name for it.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry import limits
from mlferry.errors import SpecError
from mlferry.numerics.copies import row_major
from mlferry.numerics.half import narrowed
from mlferry.numerics.shapes import Array
from mlferry.spec import mapped
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_CHUNK = 1 << 20  # values packed at a time: a multiple of 8, so that each chunk ends on a byte
_LENGTH_DELIMITED = 2
_FLOATS_TAG = 1 << 3 | _LENGTH_DELIMITED
HALF_MAX = 65504.0

FLOAT32, FLOAT16, LINEAR, LUT, INT8, RAW = "float32", "float16", "linear", "lut", "int8", "raw"


@dataclass(frozen=True)
class Encoding:
    """How a weight is stored: `kind` is one of this module's constants, `bits` per value."""

    kind: str
    bits: int

    def __str__(self) -> str:
        return self.kind if self.kind in (FLOAT32, FLOAT16, INT8) else f"{self.kind} {self.bits}"


def pack_bits(values: ArrayLike, bits: int) -> bytes:
    """Pack unsigned integers below ``2**bits`` into one stream of bits.

    Raises:
        SpecError: `bits` is not in 1..8 or a value does not fit.
    """
    _check_bits(bits)
    flat = np.asarray(values).ravel()
    if flat.size and (flat.min() < 0 or flat.max() >= 1 << bits):
        raise SpecError(f"values from {flat.min()} to {flat.max()} do not fit into {bits} bits")
    octets = flat.astype(np.uint8)
    if bits == 8:
        return octets.tobytes()
    parts = []
    for start in range(0, octets.size, _CHUNK):
        spread = np.unpackbits(octets[start : start + _CHUNK, None], axis=1)
        parts.append(np.packbits(spread[:, 8 - bits :]).tobytes())
    return b"".join(parts)


def unpack_bits(data: bytes, bits: int, count: int) -> NDArray[np.uint8]:
    """The first `count` values of a stream written by `pack_bits`.

    Raises:
        SpecError: `bits` is not in 1..8 or `data` is too short; more bytes are allowed.
    """
    _check_bits(bits)
    expected = -(-bits * count // 8)
    if len(data) < expected:
        raise SpecError(
            f"{count} values of {bits} bits need {expected} bytes; the file holds {len(data)}"
        )
    octets = np.frombuffer(data, np.uint8, expected)
    if bits == 8:
        return octets
    out = np.zeros(count, np.uint8)
    step = _CHUNK * bits // 8
    for index, start in enumerate(range(0, expected, step)):
        stream = np.unpackbits(octets[start : start + step])
        first = index * _CHUNK
        size = min(_CHUNK, count - first)
        planes = stream[: size * bits].reshape(size, bits)
        out[first : first + size] = np.packbits(planes, axis=1)[:, 0] >> (8 - bits)
    return out


class _Outside:
    """The weights that lie outside of a message, by the names that it has for them."""

    def __init__(self) -> None:
        self._scratch = mapped.Scratch()
        self._prefix = _OUTSIDE + secrets.token_bytes(16)
        self._numbers = itertools.count()
        self._names: list[bytes] = []

    def add(self, target: nn.WeightParams, array: Array) -> None:
        """Keep an array as it is now, float32 or float16, and write its name."""
        flat = array.reshape(-1)
        if mapped.map_of(array) is None:
            # what is in memory may change, or be dropped
            flat = self._scratch.keep_pieces(mapped.pieces(array), flat.shape, array.dtype)
        name = self._prefix + next(self._numbers).to_bytes(8, "big")
        _ARRAYS[name] = flat
        self._names.append(name)
        target.rawValue = name

    def close(self) -> None:
        """Forget the arrays."""
        for name in self._names:
            _ARRAYS.pop(name, None)


_OUTSIDE = b"\0mlferry\0outside\0"
_NAME_BYTES = len(_OUTSIDE) + 24
_ARRAYS: dict[bytes, Array] = {}
_OPEN: ContextVar[_Outside | None] = ContextVar("outside", default=None)


@contextmanager
def outside() -> Iterator[None]:
    """Keep the large weights that this block writes outside of their messages.

    Their messages can be copied, and read with this module, until the block ends; `put_inside`
    writes what is to stay.
    """
    store = _Outside()
    token = _OPEN.set(store)
    try:
        yield
    finally:
        _OPEN.reset(token)
        store.close()


def check_room(size: int) -> None:
    """Raise an error for weights that do not fit into one message, unless they lie outside.

    Raises:
        LimitError: they take too many bytes.
    """
    if _OPEN.get() is None:
        limits.check_model(size)


def put_inside(message: Message) -> None:
    """Write the weights of a message that lie outside into it.

    Raises:
        LimitError: they take too many bytes.
    """
    pairs = [(each, _outside_of(each)) for each in all_weights(message)]
    arrays = [(target, array) for target, array in pairs if array is not None]
    limits.check_model(sum(array.nbytes for _, array in arrays))
    for target, array in arrays:
        _write_inside(target, array)


def _outside_of(source: nn.WeightParams) -> Array | None:
    """The array of a weight that lies outside of its message."""
    if not _ARRAYS or not source.rawValue.startswith(_OUTSIDE):
        return None
    return _ARRAYS.get(source.rawValue)


def write(target: nn.WeightParams, values: ArrayLike) -> None:
    """Store an array: float16 as half, uint8 as raw bytes, everything else as float32.

    Raises:
        SpecError: the values are not numbers, or too large for float32.
    """
    array = np.asarray(values)
    store = _OPEN.get()
    if store is not None and array.nbytes >= mapped.LEAST and array.dtype in ("<f4", "<f2"):
        target.Clear()
        store.add(target, array if array.flags.c_contiguous else row_major(array, array.dtype))
        return
    _write_inside(target, array)


def _write_inside(target: nn.WeightParams, array: Array) -> None:
    target.Clear()
    if array.dtype == np.float16:
        target.float16Value = np.ascontiguousarray(array, "<f2").tobytes()
        return
    if array.dtype == np.uint8:
        target.rawValue = array.tobytes()
        return
    if array.dtype.kind not in "fiub":
        raise SpecError(f"weights must be numbers, not {array.dtype}")
    with np.errstate(over="ignore"):
        floats = row_major(array, "<f4")
    if array.dtype.itemsize > 4 and not np.array_equal(np.isinf(floats), np.isinf(array)):
        raise SpecError(f"a weight of {np.abs(array).max():g} does not fit into float32")
    if floats.size:
        head = bytes([_FLOATS_TAG]) + varint(floats.nbytes)
        target.MergeFromString(b"".join((head, floats.reshape(-1).data)))


def fits_half(array: NDArray[np.float32]) -> bool:
    """Whether half precision has room for every finite value."""
    return bool(np.abs(array[np.isfinite(array)]).max(initial=0) <= HALF_MAX)


def write_half(target: nn.WeightParams, values: ArrayLike) -> None:
    """Store an array as float16; what is not zero does not become zero.

    Raises:
        SpecError: a finite value is too large for half precision.
    """
    array = np.asarray(values, np.float32)
    if not fits_half(array):
        raise SpecError(
            f"a weight of {np.abs(array).max():g} does not fit into half precision "
            f"(largest: {HALF_MAX:g}); keep this model in float32"
        )
    write(target, narrowed(np.atleast_1d(array)).reshape(array.shape))


def write_linear(
    target: nn.WeightParams, indices: ArrayLike, bits: int, scale: ArrayLike, bias: ArrayLike = ()
) -> None:
    """Store ``weight = indices * scale + bias``; scale and bias of length 1 or channels."""
    target.Clear()
    target.rawValue = pack_bits(indices, bits)
    target.quantization.numberOfBits = bits
    linear = target.quantization.linearQuantization
    linear.scale.extend(np.atleast_1d(np.asarray(scale, np.float32)))
    linear.bias.extend(np.atleast_1d(np.asarray(bias, np.float32)))


def write_lut(target: nn.WeightParams, indices: ArrayLike, bits: int, table: ArrayLike) -> None:
    """Store ``weight = table[indices]``; the table has exactly ``2**bits`` entries."""
    entries = np.asarray(table, np.float32).ravel()
    if entries.size != 1 << bits:
        raise SpecError(f"a lookup table of {bits} bits has {1 << bits} entries: {entries.size}")
    target.Clear()
    target.rawValue = pack_bits(indices, bits)
    target.quantization.numberOfBits = bits
    target.quantization.lookupTableQuantization.floatValue.extend(entries)


def encoding(source: nn.WeightParams) -> Encoding | None:
    """How a weight is stored, or None if it is empty.

    Raises:
        SpecError: more than one kind of values, or quantized values without their table.
    """
    array = _outside_of(source)
    if array is not None:
        return Encoding(FLOAT16, 16) if array.itemsize == 2 else Encoding(FLOAT32, 32)
    present = [
        name
        for name in ("floatValue", "float16Value", "rawValue", "int8RawValue")
        if len(getattr(source, name))
    ]
    if len(present) > 1:
        raise SpecError(f"a weight holds values of several kinds: {', '.join(present)}")
    if not present:
        return None
    if present[0] == "floatValue":
        return Encoding(FLOAT32, 32)
    if present[0] == "float16Value":
        return Encoding(FLOAT16, 16)
    if present[0] == "int8RawValue":
        return Encoding(INT8, 8)
    table = source.quantization.WhichOneof("QuantizationType")
    if table is None:
        return Encoding(RAW, 8)
    bits = source.quantization.numberOfBits
    _check_bits(bits)
    return Encoding(LINEAR if table == "linearQuantization" else LUT, bits)


def count(source: nn.WeightParams) -> int:
    """How many values are stored: for fewer than 8 bits, at most (the last byte is filled)."""
    kind = encoding(source)
    if kind is None:
        return 0
    array = _outside_of(source)
    if array is not None:
        return array.size
    if kind.kind == FLOAT32:
        return len(source.floatValue)
    if kind.kind == FLOAT16:
        return len(source.float16Value) // 2
    return len(source.rawValue or source.int8RawValue) * 8 // kind.bits


def stored(source: nn.WeightParams) -> Array:
    """The stored values as a flat array in their own type; halves and bytes are not copied.

    float32, float16, or uint8 for raw and quantized bytes (still packed), int8.
    """
    kind = encoding(source)
    if kind is None:
        return np.zeros(0, np.float32)
    array = _outside_of(source)
    if array is not None:
        return array
    if kind.kind == FLOAT32:
        return _floats(source)
    if kind.kind == FLOAT16:
        if len(source.float16Value) % 2:
            raise SpecError(f"half-precision weights of {len(source.float16Value)} bytes")
        return np.frombuffer(source.float16Value, "<f2")
    if kind.kind == INT8:
        return np.frombuffer(source.int8RawValue, np.int8)
    return np.frombuffer(source.rawValue, np.uint8)


def read(
    source: nn.WeightParams, shape: Sequence[int], *, channel_axis: int = 0
) -> NDArray[np.float32]:
    """The weight as float32 in `shape`.

    Args:
        shape: its shape, row-major.
        channel_axis: the axis along which several linear scales apply.

    Raises:
        SpecError: the number of stored values does not fit the shape.
    """
    target = tuple(int(size) for size in shape)
    size = math.prod(target)
    kind = encoding(source)
    if kind is None:
        if size:
            raise SpecError(f"no values are stored, {size} are needed for shape {target}")
        return np.zeros(target, np.float32)
    if kind.kind in (LINEAR, LUT, INT8):
        result = parts(source, target, channel_axis=channel_axis)
        return _dequantize(result, target, channel_axis)
    if kind.kind == RAW:
        raise SpecError("raw bytes without quantization parameters: their meaning is unknown")
    values: NDArray[np.float32] = _sized(stored(source), target).astype(np.float32, copy=False)
    return values


@dataclass(frozen=True)
class Linear:
    """A weight that is already quantized: ``indices * scale + bias``, along one axis.

    Attributes:
        indices: unsigned integers in the weight's shape; int8 for int8 weights.
        bits: 1 to 8.
        scale: one value, or one for each entry of the layer kind's channel axis.
        bias: likewise.
    """

    indices: Array
    bits: int
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Lookup:
    """A weight that is already quantized: ``table[indices]``.

    Attributes:
        indices: unsigned integers in the weight's shape.
        bits: 1 to 8.
        table: ``2**bits`` values.
    """

    indices: NDArray[np.uint8]
    bits: int
    table: NDArray[np.float32]


def parts(
    source: nn.WeightParams, shape: Sequence[int], *, channel_axis: int = 0
) -> Linear | Lookup:
    """A quantized weight with the integers that are stored; see `read`.

    Integers of int8 are signed, and have a scale without a bias.

    Raises:
        SpecError: the weight is not quantized, or the number of stored values, or of scales, does
            not fit.
    """
    kind = encoding(source)
    target = tuple(int(size) for size in shape)
    size = int(np.prod(target, dtype=np.int64))
    if kind is None or kind.kind not in (LINEAR, LUT, INT8):
        raise SpecError(f"the weight is not quantized: {kind or 'empty'}")
    linear = source.quantization.linearQuantization
    scale, bias = (np.array(values, np.float32) for values in (linear.scale, linear.bias))
    if kind.kind == INT8:
        if scale.size != 1:
            raise SpecError(f"int8 weights need exactly one scale; the file holds {scale.size}")
        return Linear(_sized(stored(source), target), 8, scale, np.zeros(0, np.float32))
    indices = unpack_bits(source.rawValue, kind.bits, size).reshape(target)
    if kind.kind == LINEAR:
        for values, role in ((scale, "scales"), (bias, "biases")):
            if values.size or role == "scales":
                _along(values, target, channel_axis, role)
        return Linear(indices, kind.bits, scale, bias)
    table = np.array(source.quantization.lookupTableQuantization.floatValue, np.float32)
    if table.size != 1 << kind.bits:
        raise SpecError(
            f"a lookup table of {kind.bits} bits has {1 << kind.bits} entries; "
            f"the file holds {table.size}"
        )
    return Lookup(indices, kind.bits, table)


def half(source: nn.WeightParams, shape: Sequence[int]) -> NDArray[np.float16]:
    """A weight of half precision as it is stored.

    Raises:
        SpecError: the number of stored values does not fit the shape.
    """
    return _sized(stored(source), tuple(int(size) for size in shape))


def _sized(flat: Array, target: tuple[int, ...]) -> Array:
    size = int(np.prod(target, dtype=np.int64))
    if flat.size != size:
        raise SpecError(f"{flat.size} values are stored, {size} are needed for shape {target}")
    return flat.reshape(target)


@dataclass(frozen=True)
class Weight:
    """A weight inside a model: its layer, the path of its field there, and the message."""

    layer: nn.NeuralNetworkLayer
    path: str
    message: nn.WeightParams

    @property
    def kind(self) -> str:
        """The kind of the layer, as in `NeuralNetworkLayer.layer`."""
        return self.layer.WhichOneof("layer") or ""


def iter_weights(message: Message) -> Iterator[Weight]:
    """Every weight of a layer, network, model or pipeline, found by reflection.

    Layers of branches and loops, and of the models of a pipeline, appear under their own names.
    """
    yield from _iter_weights(message, None, "")


def all_weights(message: Message) -> Iterator[nn.WeightParams]:
    """Every weight, also those of a layer's own messages."""
    for field, value in message.ListFields():
        if field.message_type is None or is_map(field) or not holds_weights(field.message_type):
            continue
        for item in value if is_repeated(field) else [value]:
            if isinstance(item, nn.WeightParams):
                yield item
            else:
                yield from all_weights(item)


def _iter_weights(
    message: Message, layer: nn.NeuralNetworkLayer | None, path: str
) -> Iterator[Weight]:
    if isinstance(message, nn.NeuralNetworkLayer):
        layer, path = message, ""
    for field, value in message.ListFields():
        if field.message_type is None or not holds_weights(field.message_type):
            continue
        if is_map(field):
            continue
        items = value if is_repeated(field) else [value]
        for index, item in enumerate(items):
            name = f"{field.name}[{index}]" if is_repeated(field) else field.name
            where = f"{path}.{name}" if path else name
            if isinstance(item, nn.WeightParams):
                if layer is not None:
                    yield Weight(layer, where, item)
            else:
                yield from _iter_weights(item, layer, where)


_HOLDS_WEIGHTS: dict[str, bool] = {}


def holds_weights(descriptor: Descriptor) -> bool:
    """Whether messages of a type can hold weights; types may contain each other in circles."""
    if descriptor.full_name not in _HOLDS_WEIGHTS:
        reached = {descriptor.full_name: descriptor}
        waiting = [descriptor]
        while waiting:
            for field in waiting.pop().fields:
                inner = field.message_type
                if inner is not None and inner.full_name not in reached:
                    reached[inner.full_name] = inner
                    waiting.append(inner)
        result = nn.WeightParams.DESCRIPTOR.full_name in reached
        _HOLDS_WEIGHTS[descriptor.full_name] = result
    return _HOLDS_WEIGHTS[descriptor.full_name]


def _dequantize(
    stored_parts: Linear | Lookup, shape: tuple[int, ...], channel_axis: int
) -> NDArray[np.float32]:
    if isinstance(stored_parts, Lookup):
        return stored_parts.table[stored_parts.indices]
    values = stored_parts.indices * _along(stored_parts.scale, shape, channel_axis, "scales")
    if stored_parts.bias.size:
        values += _along(stored_parts.bias, shape, channel_axis, "biases")
    return values


def _along(
    values: NDArray[np.float32], shape: tuple[int, ...], axis: int, role: str
) -> NDArray[np.float32]:
    channels = shape[axis] if shape else 1
    if values.size not in (1, channels):
        raise SpecError(f"{values.size} quantization {role}; 1 or {channels} are possible")
    if values.size == 1 or not shape:
        return values.reshape(())
    return values.reshape([-1 if index == axis else 1 for index in range(len(shape))])


def _floats(source: nn.WeightParams) -> NDArray[np.float32]:
    """`floatValue` read from the wire format: one packed run, or several after a merge.

    NumPy copies an unaligned array before every product, so it is copied here, once.
    """
    data = source.SerializeToString()
    runs: list[NDArray[np.float32]] = []
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        if tag != _FLOATS_TAG:
            break
        length, position = _read_varint(data, position)
        runs.append(np.frombuffer(data, "<f4", length // 4, position))
        position += length
    if len(runs) != 1:
        return np.concatenate(runs)
    return runs[0] if runs[0].flags.aligned else runs[0].copy()


def varint(value: int) -> bytes:
    """A number as the wire format of protobuf has it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = data[position]
        value |= (octet & 0x7F) << shift
        position += 1
        if not octet & 0x80:
            return value, position
        shift += 7


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise SpecError(f"quantized weights have 1 to 8 bits, not {bits}")
