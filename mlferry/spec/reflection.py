"""Properties of a field that all supported protobuf releases know."""

from __future__ import annotations

from typing import Any, Protocol


class Field(Protocol):
    """The attributes used of a `FieldDescriptor`, whose class differs between releases."""

    @property
    def name(self) -> str:
        """Of the field."""

    @property
    def message_type(self) -> Any:
        """The descriptor of the messages in the field; None for other types."""

    @property
    def enum_type(self) -> Any:
        """The descriptor of the enum; None for other types."""


_LABEL_REPEATED = 3


def is_repeated(field: Field) -> bool:
    """Whether a `FieldDescriptor` describes a repeated field.

    `is_repeated` came with protobuf 6; `label` is deprecated.
    """
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(getattr(field, "label", None) == _LABEL_REPEATED)


def is_map(field: Field) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
