"""Sequences of tensors and optional values, which exist while a model is converted.

Core ML has no blobs of them: their entries are blobs and constants of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.indexing import from_front
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.onnx.ops.reshaping import split_at_computed
from mlferry.converters.operands import as_blob, extent, ints, joined, positive, scalar, vector
from mlferry.converters.values import Blob, Constant, Opaque, Operand, Result
from mlferry.errors import ConversionError


@dataclass(frozen=True)
class TensorSequence(Opaque):
    """A sequence.

    Attributes:
        entries: its tensors.
    """

    entries: tuple[Operand, ...]


class Nothing(Opaque):
    """An optional value that is not there."""

    what = "an optional value without content"


def _entries(node: Node, x: Opaque | Operand) -> tuple[Operand, ...]:
    if not isinstance(x, TensorSequence):
        raise ConversionError(f"its input {node.inputs[0].name!r} is not a sequence of tensors")
    return x.entries


@op("SequenceEmpty", raw=True)
def empty(context: Lowering, node: Node) -> TensorSequence:
    node.attrs.get("dtype")
    return TensorSequence(())


@op("SequenceConstruct", raw=True)
def construct(context: Lowering, node: Node, *entries: Operand) -> TensorSequence:
    return TensorSequence(entries)


@op("SequenceInsert", raw=True)
def insert(
    context: Lowering, node: Node, sequence: Opaque, entry: Operand, position: Operand | None = None
) -> TensorSequence:
    """Before a position; at the end without one."""
    entries = _entries(node, sequence)
    count = len(entries)
    place = count if position is None else _place(position, count, at_most=count)
    return TensorSequence((*entries[:place], entry, *entries[place:]))


@op("SequenceErase", raw=True)
def erase(
    context: Lowering, node: Node, sequence: Opaque, position: Operand | None = None
) -> TensorSequence:
    """The entry at a position; the last one without it."""
    entries = _entries(node, sequence)
    last = Constant("", np.array(-1))
    place = _place(last if position is None else position, len(entries))
    return TensorSequence(entries[:place] + entries[place + 1 :])


@op("SequenceAt", raw=True)
def at(context: Lowering, node: Node, sequence: Opaque, position: Operand) -> Result:
    """The entry at a position, which may be computed if all entries have one shape."""
    entries = _entries(node, sequence)
    if isinstance(position, Constant):
        return entries[_place(position, len(entries))]
    blobs = [as_blob(context, entry) for entry in entries]
    if len({blob.source_shape for blob in blobs}) != 1:
        raise ConversionError("a computed position in a sequence whose entries differ in shape")
    rows = _stacked(context, blobs, 0)
    row = context.gather(rows, vector(from_front(context, position, len(blobs))), 0)
    return scalar(row) if row.rank == 1 else context.layer("squeeze", row, axes=(0,))


@op("SequenceLength", raw=True)
def length(context: Lowering, node: Node, sequence: Opaque) -> Result:
    return np.array(len(_entries(node, sequence)), np.int64)


@op("ConcatFromSequence", raw=True)
def concatenated(context: Lowering, node: Node, sequence: Opaque) -> Result:
    """All entries along an axis, which is a new one if `new_axis` is set."""
    entries, axis = _entries(node, sequence), node.attrs["axis"]
    stacks = bool(node.attrs.get("new_axis", 0))
    if not entries:
        raise ConversionError("a sequence without entries is joined")
    arrays = [entry.array for entry in entries if isinstance(entry, Constant)]
    if len(arrays) == len(entries):
        return np.stack(arrays, axis) if stacks else np.concatenate(arrays, axis)
    blobs = [as_blob(context, entry) for entry in entries]
    if stacks:
        return _stacked(context, blobs, axis)
    return joined(context, blobs, positive(axis, blobs[0].rank))


def _stacked(context: Lowering, blobs: list[Blob], axis: int) -> Blob:
    if all(blob.is_scalar for blob in blobs):
        return joined(context, [vector(blob) for blob in blobs], 0)
    place = positive(axis, blobs[0].rank + 1)
    return joined(context, [context.expand(blob, place) for blob in blobs], place)


@op("SplitToSequence", raw=True)
def split(
    context: Lowering, node: Node, x: Operand, sizes: Operand | None = None
) -> TensorSequence:
    """Parts of one size, the last of which may be smaller; of several; or entries of the axis."""
    axis, keeps = node.attrs.get("axis", 0), bool(node.attrs.get("keepdims", 1))
    axis = positive(axis, x.array.ndim if isinstance(x, Constant) else x.rank)
    if isinstance(sizes, Blob):
        count = None if sizes.is_scalar else sizes.known[0]
        if count is None:
            raise ConversionError("a sequence of parts whose number is computed")
        return TensorSequence(
            tuple(split_at_computed(context, as_blob(context, x), sizes, axis, count))
        )
    total = x.array.shape[axis] if isinstance(x, Constant) else extent(x, axis)
    if sizes is None:
        parts = [1] * total
    elif sizes.array.ndim:
        parts = list(ints(sizes.array))
    else:
        size = max(1, int(sizes.array))
        parts = [min(size, total - start) for start in range(0, total, size)]
    if sum(parts) != total or min(parts, default=1) < 1:
        raise ConversionError(f"an axis of {total} entries in parts of {tuple(parts)}")
    drops = sizes is None and not keeps
    if isinstance(x, Constant):
        ends = np.cumsum(parts)[:-1]
        arrays = np.split(x.array, ends, axis)
        return TensorSequence(
            tuple(Constant("", each.squeeze(axis) if drops else each) for each in arrays)
        )
    blobs = context.split(x, parts, axis)
    if drops:
        blobs = [
            scalar(x) if x.rank == 1 else context.layer("squeeze", x, axes=(axis,)) for x in blobs
        ]
    return TensorSequence(tuple(blobs))


def _place(position: Operand, count: int, at_most: int | None = None) -> int:
    """A known position, which may count from the end, among so many entries."""
    if not isinstance(position, Constant):
        raise ConversionError("a computed position, at which a sequence changes")
    place = int(position.array.reshape(-1)[0])
    most = count - 1 if at_most is None else at_most
    if not -count <= place <= most:
        raise ConversionError(f"position {place} in a sequence of {count} tensors")
    return place + count if place < 0 else place


@op("Optional", raw=True)
def optional(context: Lowering, node: Node, x: Operand | Opaque | None = None) -> Operand | Opaque:
    node.attrs.get("type")
    return Nothing() if x is None else x


@op("OptionalHasElement", raw=True)
def has_element(context: Lowering, node: Node, x: Operand | Opaque | None = None) -> Result:
    return np.array(x is not None and not isinstance(x, Nothing))


@op("OptionalGetElement", raw=True)
def get_element(context: Lowering, node: Node, x: Operand | Opaque) -> Operand | Opaque:
    if isinstance(x, Nothing):
        raise ConversionError(f"{node.inputs[0].name!r} is {x.what}")
    return x
