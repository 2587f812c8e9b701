"""Which sizes of its inputs the layers of a converted network were computed for.

A converter may compute with an extent that is known: a constant made of it looks like any other
number. What was computed so is written into the model, by the axes of the inputs on which it
depends, and these axes cannot be made flexible afterwards. A model without such a record comes
from elsewhere; there the layers themselves are looked at more strictly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mlferry.spec.proto import model_pb2

SIZES_KEY = "com.github.mlferry.sizes"

Record = dict[str, dict[int, str]]  # by input and axis, counted from the end: what depends on it


def write(spec: model_pb2.Model, record: Mapping[str, Mapping[int, str]]) -> None:
    """Write a record into a model, in the place of one that it may have."""
    spec.description.metadata.userDefined[SIZES_KEY] = json.dumps(record, ensure_ascii=False)


def read(spec: model_pb2.Model) -> Record | None:
    """The record of a model; None where there is none that can be read."""
    text = spec.description.metadata.userDefined.get(SIZES_KEY, "")
    try:
        result = json.loads(text)
        return {
            str(name): {int(axis): str(source) for axis, source in axes.items()}
            for name, axes in result.items()
        }
    except (ValueError, AttributeError):  # no JSON, or not of this form
        return None


def rename(spec: model_pb2.Model, old: str, new: str) -> None:
    """Keep the record of an input under its new name."""
    record = read(spec)
    if record is not None and old in record:
        record[new] = record.pop(old)
        write(spec, record)


def bind(spec: model_pb2.Model, names: Iterable[str], ranks: Mapping[str, int]) -> None:
    """Let a part of a network say that its new inputs may be bound to their sizes.

    Args:
        spec: the part, with the record of the whole.
        names: inputs that were blobs inside.
        ranks: their numbers of axes.
    """
    record = read(spec)
    if not record or not any(record.values()):
        return
    for name in names:
        record[name] = {
            -axis: "the network of which this is a part" for axis in range(1, ranks[name] + 1)
        }
    write(spec, record)
