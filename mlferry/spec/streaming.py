"""The bytes of a model in pieces, so that a model with large weights is not in memory twice.

protobuf has no size of a message without its bytes: here weights are counted and written one by
one, and everything around them is what protobuf makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from mlferry import limits
from mlferry.errors import ModelFileError
from mlferry.spec import weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated

_WHOLE = 32 << 20  # bytes of weights up to which a model is written at once
_LENGTH_DELIMITED = 2
_FLOATS = "floatValue"


@dataclass(frozen=True)
class Serialized:
    """The bytes of a model, which are the same for the same model in any process.

    Iterating gives them in pieces, each time anew; the model must not change meanwhile.

    Attributes:
        parts: pieces, or weights that stand for theirs.
        size: the number of all bytes.
    """

    parts: tuple[bytes | nn.WeightParams, ...]
    size: int

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            yield part if isinstance(part, bytes) else part.SerializeToString(deterministic=True)

    def __len__(self) -> int:
        return self.size


def serialized(spec: model_pb2.Model) -> Serialized:
    """The bytes of a model.

    Raises:
        ModelFileError: a message cannot be written.
        LimitError: a model over 2 GB.
    """
    amount = sum(map(_size_of, weights.all_weights(spec)))
    limits.check_model(amount)
    try:
        parts, size = _whole(spec, amount)
    except (EncodeError, ValueError) as error:
        raise ModelFileError(f"the model cannot be written: {error}") from error
    limits.check_model(size)
    return Serialized(tuple(parts), size)


def _whole(spec: model_pb2.Model, amount: int) -> tuple[list[bytes | nn.WeightParams], int]:
    if amount > _WHOLE:
        parts = _pieces(spec)
        if parts is not None:
            return parts
    data = spec.SerializeToString(deterministic=True)
    return [data], len(data)


def _size_of(weight: nn.WeightParams) -> int:
    fields = weight.ListFields()
    if [field.name for field, _ in fields] == [_FLOATS]:
        size = 4 * len(weight.floatValue)
        return 1 + len(weights.varint(size)) + size
    return int(weight.ByteSize())


def _pieces(message: Message) -> tuple[list[bytes | nn.WeightParams], int] | None:
    """The pieces of a message, and their size; None if it has fields that are not known."""
    if isinstance(message, nn.WeightParams):
        return [message], _size_of(message)
    if len(UnknownFieldSet(message)):
        return None
    parts: list[bytes | nn.WeightParams] = []
    total = 0
    rest = type(message)()  # fields between those with weights, which are written together
    for field, value in message.ListFields():
        has_weights = field.message_type is not None and weights.holds_weights(field.message_type)
        if is_map(field) or not has_weights:
            if is_repeated(field):
                getattr(rest, field.name).MergeFrom(value)
            elif field.message_type is not None:
                getattr(rest, field.name).CopyFrom(value)
                getattr(rest, field.name).SetInParent()
            else:
                setattr(rest, field.name, value)
            continue
        data = rest.SerializeToString(deterministic=True)
        rest.Clear()
        parts.append(data)
        total += len(data)
        for item in value if is_repeated(field) else [value]:
            inner = _pieces(item)
            if inner is None:
                return None
            tag = field.number << 3 | _LENGTH_DELIMITED
            head = weights.varint(tag) + weights.varint(inner[1])
            parts += [head, *inner[0]]
            total += len(head) + inner[1]
    data = rest.SerializeToString(deterministic=True)
    return [*parts, data], total + len(data)
