"""The input sizes for which the layers of a converted network were computed.

A converter may compute with a known extent, and the constant that comes out looks like any other
number. So the model records such constants by the input axes on which they depend, and these axes
cannot be made flexible afterwards. A model without such a record comes from elsewhere; its layers
are examined more strictly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mlferry.spec.proto import model_pb2

SIZES_KEY = "com.github.mlferry.sizes"

Record = dict[str, dict[int, str]]  # what depends on each axis of an input; axes count from the end


def write(spec: model_pb2.Model, record: Mapping[str, Mapping[int, str]]) -> None:
    """Write a record into a model, replacing any that it has."""
    spec.description.metadata.userDefined[SIZES_KEY] = json.dumps(record, ensure_ascii=False)


def read(spec: model_pb2.Model) -> Record | None:
    """The record of a model; None if there is no readable one."""
    text = spec.description.metadata.userDefined.get(SIZES_KEY, "")
    try:
        result = json.loads(text)
        return {
            str(name): {int(axis): str(source) for axis, source in axes.items()}
            for name, axes in result.items()
        }
    except (ValueError, AttributeError):  # not JSON, or not of this form
        return None


def rename(spec: model_pb2.Model, old: str, new: str) -> None:
    """Keep the record of an input under its new name."""
    record = read(spec)
    if record is not None and old in record:
        record[new] = record.pop(old)
        write(spec, record)


def bind(spec: model_pb2.Model, names: Iterable[str], ranks: Mapping[str, int]) -> None:
    """Record for a part of a network that its new inputs may depend on their sizes.

    Args:
        spec: the part, which has the record of the whole.
        names: inputs that were blobs inside.
        ranks: how many axes each of them has.
    """
    record = read(spec)
    if not record or not any(record.values()):
        return
    for name in names:
        record[name] = {
            -axis: "the network of which this is a part" for axis in range(1, ranks[name] + 1)
        }
    write(spec, record)
