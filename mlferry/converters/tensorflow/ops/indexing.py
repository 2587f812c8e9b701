"""Gathering and scattering."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import (
    array_of,
    as_blob,
    ints,
    known,
    positive,
    rank,
    scalar,
    vector,
)
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError


def _checked(x: Operand, size: int | None) -> None:
    """Raise a `ConversionError` if a constant index is out of bounds."""
    if isinstance(x, Constant) and size is not None and x.array.size:
        least, most = int(x.array.min()), int(x.array.max())
        if least < 0 or most >= size:
            raise ConversionError(f"indices {least}..{most} of an axis of {size}")


@op("Gather", "GatherV2", raw=True)
def gather(
    context: Lowering, node: Node, x: Operand, indices: Operand, axis: Operand | None = None
) -> Blob:
    """The rank of the result is the sum of both ranks minus 1."""
    batch = node.attrs.get("batch_dims", 0)
    blob = as_blob(context, x)
    place = 0 if axis is None else positive(ints(array_of(node, 2, axis))[0], blob.rank)
    if batch:
        return _gather_in_batches(
            context, source(context, x), source(context, indices), place, batch
        )
    places = source(context, indices)
    keeps = blob.layout == CHANNELS_FIRST and place > 0 and rank(places) == 1
    blob = blob if keeps else context.source_order(blob)
    where = blob.axis(place)
    _checked(indices, blob.known[where])
    output = context.layer("gather", blob, vector(places), layout=blob.layout, axis=where)
    if not places.is_scalar:
        return output
    if blob.rank == 1:
        return scalar(output)
    return context.layer("squeeze", output, layout=SOURCE, axes=(where,))


def _gather_in_batches(context: Lowering, x: Blob, places: Blob, axis: int, batch: int) -> Blob:
    """One index for each entry of the batch axes, or any along the axis that follows them."""
    if axis != batch:
        raise ConversionError(f"batch_dims={batch} with axis={axis}: the axis behind the batch")
    shape = known(places)
    if x.rank == axis + 1 and places.rank == x.rank:
        return context.layer("gatherAlongAxis", x, places, layout=SOURCE, axis=axis)
    fixed = np.moveaxis(np.indices(shape)[:batch], 0, -1)
    wide = context.expand(places, -1)
    points = context.concat([context.constant(fixed), wide], -1)
    return context.layer("gatherND", x, points, layout=SOURCE)


@op("GatherNd")
def gather_nd(context: Lowering, node: Node, x: Blob, indices: Blob) -> Blob:
    node.attrs.get("bad_indices_policy")
    output = context.layer("gatherND", x, indices, layout=SOURCE)
    depth = indices.known[-1]
    return scalar(output) if indices.rank == 1 and depth == x.rank else output


_SCATTERS = {
    "TensorScatterUpdate": "SCATTER_UPDATE",
    "TensorScatterAdd": "SCATTER_ADD",
    "TensorScatterSub": "SCATTER_SUB",
    "TensorScatterMax": "SCATTER_MAX",
    "TensorScatterMin": "SCATTER_MIN",
}


@op(*_SCATTERS)
def tensor_scatter(context: Lowering, node: Node, x: Blob, indices: Blob, updates: Blob) -> Blob:
    node.attrs.get("bad_indices_policy")
    return context.layer(
        "scatterND", x, indices, vector(updates), layout=SOURCE, mode=_SCATTERS[node.op]
    )


@op("ScatterNd", raw=True)
def scatter_nd(
    context: Lowering, node: Node, indices: Operand, updates: Operand, shape: Operand
) -> Blob:
    """Adds the updates to zeros."""
    node.attrs.get("bad_indices_policy")
    zeros = context.filled(ints(array_of(node, 2, shape)))
    return context.layer(
        "scatterND",
        zeros,
        source(context, indices),
        vector(source(context, updates)),
        layout=SOURCE,
        mode="SCATTER_ADD",
    )


@op("OneHot", raw=True)
def one_hot(
    context: Lowering, node: Node, indices: Operand, depth: Operand, on: Operand, off: Operand
) -> Blob:
    """An index out of range gives off values only."""
    size = ints(array_of(node, 1, depth))[0]
    values = [float(array_of(node, i, v).ravel()[0]) for i, v in ((2, on), (3, off))]
    blob = source(context, indices)
    axis = positive(node.attrs.get("axis", -1), rank(blob) + 1)
    steps = context.constant(np.arange(size))
    wide = vector(blob) if blob.is_scalar else context.expand(blob, axis)
    shape = [1] * (max(rank(blob), 0) + 1)
    shape[axis] = size
    if len(shape) > 1:
        steps = context.constant(np.arange(size).reshape(shape))
    same = context.emit("equal", wide, steps)
    line = {"alpha": values[0] - values[1], "beta": values[1]}
    return context.emit("activation", same, linear=line)


@op("Where", raw=True)
def where(context: Lowering, node: Node, condition: Operand) -> Blob:
    """The positions of nonzero values, one per row."""
    return context.layer("whereNonZero", source(context, condition), layout=SOURCE)


@op("BitwiseAnd", "BitwiseOr", "BitwiseXor", "ListDiff", "Unique", "UniqueV2", raw=True)
def known_only(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """Constants are evaluated during the conversion; nothing else is supported."""
    names = ", ".join(
        repr(v.name) for v, x in zip(node.inputs, operands, strict=True) if isinstance(x, Blob)
    )
    raise ConversionError(
        f"{names} is computed at run time, where Core ML has no layer for {node.op}; of constants "
        f"it converts. Make a custom layer of it: custom_conversion_functions={{{node.op!r}: "
        "function}"
    )
