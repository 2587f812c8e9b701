"""Set any field of any message from Python values, driven by the schema."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.registry import did_you_mean
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.reflection import Field, is_map, is_repeated

if TYPE_CHECKING:
    from google.protobuf.message import Message


def fill(message: Message, values: Mapping[str, Any]) -> None:
    """Set the fields of `message`.

    Pass numbers, strings and booleans as they are, enum values by name, repeated fields as any
    iterable, nested messages as a mapping (an empty one sets an empty message), and weights as
    arrays. None leaves a field unchanged.

    Raises:
        SpecError: a field does not exist or a value does not fit it.
    """
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in values.items():
        if value is None:
            continue
        if name not in fields:
            names = list(fields)
            raise SpecError(
                f"{message.DESCRIPTOR.name} has no field {name!r}."
                + (did_you_mean(name, names) or f" Its fields: {', '.join(names) or 'none'}.")
            )
        try:
            _set(message, fields[name], value)
        except (TypeError, ValueError) as error:
            if isinstance(error, SpecError):
                raise
            raise SpecError(
                f"{message.DESCRIPTOR.name}.{name} cannot be {value!r}: {error}"
            ) from error


def _set(message: Message, field: Field, value: Any) -> None:
    if is_map(field):
        _set_map(getattr(message, field.name), field, value)
    elif is_repeated(field):
        target = getattr(message, field.name)
        del target[:]
        for item in value:
            if field.message_type is None:
                target.append(_scalar(field, item))
            else:
                _set_message(target.add(), item)
    elif field.message_type is not None:
        _set_message(getattr(message, field.name), value)
    else:
        setattr(message, field.name, _scalar(field, value))


def _set_map(target: MutableMapping[Any, Any], field: Field, value: Mapping[Any, Any]) -> None:
    if not isinstance(value, Mapping):
        raise SpecError(f"{field.name} is set from a mapping, not from {value!r}")
    item = field.message_type.fields_by_name["value"]
    for key, entry in value.items():
        if item.message_type is None:
            target[key] = entry
        else:
            _set_message(target[key], entry)


def _set_message(target: Message, value: Any) -> None:
    target.SetInParent()
    if isinstance(value, target.__class__):
        target.CopyFrom(value)
    elif isinstance(target, nn.WeightParams) and isinstance(value, weights.Linear):
        weights.write_linear(target, value.indices, value.bits, value.scale, value.bias)
    elif isinstance(target, nn.WeightParams) and not isinstance(value, Mapping):
        weights.write(target, value)
    elif isinstance(value, Mapping):
        fill(target, value)
    else:
        raise SpecError(f"{target.DESCRIPTOR.name} is set from a mapping, not from {value!r}")


def _scalar(field: Field, value: float | str) -> Any:
    if field.enum_type is not None and isinstance(value, str):
        names = field.enum_type.values_by_name
        if value not in names:
            raise SpecError(f"{field.name} is one of {', '.join(names)}, not {value!r}")
        return names[value].number
    return value.item() if isinstance(value, np.generic) else value
