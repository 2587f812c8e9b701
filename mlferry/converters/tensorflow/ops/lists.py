"""Lists of tensors, which TensorFlow's loops read from and write to.

They are lists of operands while a loop is unrolled, and blobs with an axis of entries in Core ML's
own loop.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import (
    array_of,
    as_blob,
    joined,
    known,
    rank,
    scalar,
    shaped,
    vector,
)
from mlferry.converters.tensorflow.ops.registry import op, read_all, source
from mlferry.converters.values import SOURCE, Blob, Constant, Opaque, Operand, Result
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array


@dataclass(frozen=True)
class Items(Opaque):
    """A list; an entry is None if nothing was written to it.

    Attributes:
        entries: operands.
        shape: of an entry; -1 for an extent that TensorFlow does not know.
        whole: the blob whose rows are the entries, while it has all of them.
    """

    entries: tuple[Operand | None, ...]
    shape: tuple[int, ...]
    whole: Blob | None = None


def stacked(context: Lowering, items: Items) -> Blob:
    """The entries along a new first axis; zeros for missing ones.

    Raises:
        ConversionError: the shape of an entry is not known.
    """
    if items.whole is not None:
        return items.whole
    present = [source(context, x) for x in items.entries if x is not None]
    shape = known(present[0]) if present else items.shape
    if min(shape, default=1) < 1 or not items.entries:
        raise ConversionError(
            f"a list of {len(items.entries)} tensors of shape {items.shape}: give fixed shapes"
        )
    if not present:
        target = (len(items.entries), *shape)
        return context.layer("fillStatic", layout=SOURCE, targetShape=target, value=0.0)
    zero = context.filled((1, *shape)) if len(present) < len(items.entries) else None
    rows = [
        zero if x is None else shaped(context, source(context, x), (1, *shape))
        for x in items.entries
    ]
    return joined(context, [row for row in rows if row is not None], 0)


def shaped_as(context: Lowering, x: Operand | Opaque, later: Operand | Opaque) -> Operand | Opaque:
    """A list without a known shape of entries gets that of what was written later."""
    if not isinstance(x, Items) or not isinstance(later, Items) or min(x.shape, default=1) > 0:
        return x
    entry = next((item for item in later.entries if item is not None), None)
    if entry is None:
        return x
    written = source(context, entry)
    return replace(x, shape=known(written) if rank(written) else ())


@op("TensorListReserve", "EmptyTensorList", raw=True)
def reserve(context: Lowering, node: Node, shape: Operand, count: Operand) -> Items:
    """`EmptyTensorList` takes the largest number of entries, and starts without any."""
    read_all(node)
    number = int(array_of(node, 1, count).ravel()[0]) if node.op == "TensorListReserve" else 0
    extents = tuple(int(n) for n in shape.array.ravel()) if isinstance(shape, Constant) else (-1,)
    return Items((None,) * number, extents)


@op("TensorListFromTensor", raw=True)
def from_tensor(context: Lowering, node: Node, x: Operand, shape: Operand) -> Items:
    read_all(node)
    return _rows(context, x)


def _rows(context: Lowering, x: Operand) -> Items:
    if isinstance(x, Constant):
        return Items(tuple(Constant("", row) for row in x.array), x.array.shape[1:])
    blob = source(context, x)
    count, *inner = known(blob)
    rows = (shaped(context, row, inner) for row in context.split(blob, count, 0))
    return Items(tuple(rows), tuple(inner), blob)


@op("TensorListGetItem", raw=True)
def get_item(
    context: Lowering, node: Node, items: Items | Operand, index: Operand, shape: Operand
) -> Result:
    read_all(node)
    return _entry(context, node, items, index)


def _entry(
    context: Lowering, node: Node, items: Items | Operand, index: Operand
) -> Operand | Array:
    if not isinstance(items, Items):
        at = vector(source(context, index))
        output = context.gather(source(context, items), at, 0)
        if output.rank == 1:
            return scalar(output)
        return context.layer("squeeze", output, layout=SOURCE, axes=(0,))
    place = _place(node, items, index)
    entry = items.entries[place]
    if entry is None:
        raise ConversionError(f"entry {place} of a list is read before it is written")
    return entry.array if isinstance(entry, Constant) and not entry.name else entry


@op("TensorListSetItem", raw=True)
def set_item(
    context: Lowering, node: Node, items: Items | Operand, index: Operand, item: Operand
) -> Result:
    read_all(node)
    return _with_entry(context, node, items, index, item)


def _with_entry(
    context: Lowering, node: Node, items: Items | Operand, index: Operand, item: Operand
) -> Blob | Items:
    if not isinstance(items, Items):
        row = source(context, item)
        wide = shaped(context, row, (1, *(known(row) if rank(row) else ())))
        at = vector(source(context, index))
        return context.layer("scatter", source(context, items), at, wide, layout=SOURCE, axis=0)
    entries = list(items.entries)
    entries[_place(node, items, index)] = item
    return replace(items, entries=tuple(entries), whole=None)


def _place(node: Node, items: Items, index: Operand) -> int:
    place = int(array_of(node, 1, index).ravel()[0])
    if not 0 <= place < len(items.entries):
        raise ConversionError(f"entry {place} of a list of {len(items.entries)}")
    return place


@op("TensorListStack", raw=True)
def stack(context: Lowering, node: Node, items: Items | Operand, shape: Operand) -> Blob:
    read_all(node)
    return stacked(context, items) if isinstance(items, Items) else source(context, items)


@op("TensorListPushBack", raw=True)
def push_back(context: Lowering, node: Node, items: Items | Operand, item: Operand) -> Items:
    read_all(node)
    if not isinstance(items, Items):
        raise ConversionError("a list that grows inside a loop whose rounds are computed")
    return replace(items, entries=(*items.entries, item), whole=None)


@op("TensorListLength", raw=True)
def length(context: Lowering, node: Node, items: Items | Operand) -> Array:
    count = len(items.entries) if isinstance(items, Items) else known(as_blob(context, items))[0]
    return np.array(count, np.int32)


# ---- the arrays of TensorFlow 1: a handle, and a flow that stands for the list -----------------


@dataclass(frozen=True)
class Handle(Opaque):
    """Stands for a list, whose entries follow the flow."""


@op("TensorArrayV3", raw=True)
def tensor_array(context: Lowering, node: Node, count: Operand) -> list[Any]:
    shape = node.attrs.get("element_shape")
    read_all(node)
    number = int(array_of(node, 0, count).ravel()[0])
    extents = (-1,) if shape is None else tuple(-1 if n is None else n for n in shape)
    return [Handle(), Items((None,) * number, extents)]


@op("TensorArrayReadV3", raw=True)
def array_read(
    context: Lowering, node: Node, handle: Operand, index: Operand, flow: Items | Operand
) -> Result:
    read_all(node)
    return _entry(context, node, flow, index)


@op("TensorArrayWriteV3", raw=True)
def array_write(
    context: Lowering,
    node: Node,
    handle: Operand,
    index: Operand,
    item: Operand,
    flow: Items | Operand,
) -> Result:
    read_all(node)
    return _with_entry(context, node, flow, index, item)


@op("TensorArrayScatterV3", raw=True)
def array_scatter(
    context: Lowering,
    node: Node,
    handle: Operand,
    indices: Operand,
    x: Operand,
    flow: Items | Operand,
) -> Items:
    """The rows of a tensor, each at its index."""
    read_all(node)
    places = array_of(node, 1, indices).ravel().tolist()
    rows = _rows(context, x)
    before = flow.entries if isinstance(flow, Items) else ()
    if places == list(range(max(len(before), len(places)))):
        return rows
    entries = list(before) + [None] * (max(places, default=-1) + 1 - len(before))
    for place, row in zip(places, rows.entries, strict=True):
        entries[place] = row
    return Items(tuple(entries), rows.shape)


@op("TensorArrayGatherV3", raw=True)
def array_gather(
    context: Lowering, node: Node, handle: Operand, indices: Operand, flow: Items | Operand
) -> Blob:
    """Some entries along a new first axis."""
    read_all(node)
    if not isinstance(flow, Items):
        return context.gather(source(context, flow), vector(source(context, indices)), 0)
    places = array_of(node, 1, indices).ravel().tolist()
    if places == list(range(len(flow.entries))):
        return stacked(context, flow)
    return stacked(context, Items(tuple(flow.entries[place] for place in places), flow.shape))


@op("TensorArraySplitV3", raw=True)
def array_split(
    context: Lowering, node: Node, handle: Operand, x: Operand, lengths: Operand, flow: Operand
) -> Items:
    """Parts along the first axis."""
    read_all(node)
    sizes = array_of(node, 2, lengths).ravel().tolist()
    parts = context.split(source(context, x), sizes, 0)
    return Items(tuple(parts), known(parts[0]))


@op("TensorArrayConcatV3", raw=True)
def array_concat(
    context: Lowering, node: Node, handle: Operand, flow: Items | Operand
) -> list[Any]:
    """The entries one after another along their own first axis, and their lengths."""
    read_all(node)
    if not isinstance(flow, Items):
        whole = known(source(context, flow))
        output = shaped(context, source(context, flow), (whole[0] * whole[1], *whole[2:]))
        return [output, np.full(whole[0], whole[1], np.int64)]
    parts = [source(context, x) for x in flow.entries if x is not None]
    if not parts or len(parts) < len(flow.entries):
        raise ConversionError("entries of a list are read before they are written")
    return [joined(context, parts, 0), np.array([known(part)[0] for part in parts], np.int64)]


@op("TensorArraySizeV3", raw=True)
def array_size(context: Lowering, node: Node, handle: Operand, flow: Items | Operand) -> Array:
    return length(context, node, flow)
