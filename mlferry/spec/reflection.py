"""What all supported protobuf releases can tell about a field."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_LABEL_REPEATED = 3


def is_repeated(field: Any) -> bool:
    """Whether a `FieldDescriptor` is of a repeated field.

    `is_repeated` came with protobuf 6; `label` is on its way out.
    """
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == _LABEL_REPEATED)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
