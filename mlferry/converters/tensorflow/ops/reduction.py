"""Reductions, arguments of extremes, sorting and cumulative sums."""

from __future__ import annotations

import itertools

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import (
    array_of,
    as_blob,
    extent,
    ints,
    joined,
    positive,
    rank,
    scalar,
)
from mlferry.converters.slices import sliced
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Blob, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

_REDUCTIONS = {
    "Sum": "reduceSum",
    "Mean": "reduceMean",
    "Max": "reduceMax",
    "Min": "reduceMin",
    "Prod": "reduceProd",
    "Any": "reduceMax",
    "All": "reduceMin",
    "EuclideanNorm": "reduceL2",
}


@op(*_REDUCTIONS, constants=(1,), layouts=UNFLATTENED)
def reduce(context: Lowering, node: Node, x: Blob, axes: Array) -> Blob:
    """Channels-first data stay so if the channels and the batch are not reduced."""
    keep = bool(node.attrs.get("keep_dims", False))
    if rank(x) == 0 or not axes.size:
        return context.emit("unary", x, type="ABS") if node.op == "EuclideanNorm" else x
    reduced = sorted({positive(a, x.rank) for a in ints(axes)})
    left = x.rank if keep else x.rank - len(reduced)
    stays = keep or not {0, x.rank - 1} & set(reduced)
    if x.layout == CHANNELS_FIRST and not stays and left > 1:
        x = context.source_order(x)
    layout = x.layout if left > 2 else SOURCE
    places = sorted(x.axis(a) for a in reduced)
    output = context.layer(
        _REDUCTIONS[node.op], x, layout=layout, axes=places, keepDims=keep, reduceAll=False
    )
    return output if left else scalar(output)


@op("ArgMax", "ArgMin", raw=True)
def arg(context: Lowering, node: Node, x: Operand, axis: Operand) -> Blob:
    """The first extreme wins."""
    blob = as_blob(context, x)
    place = positive(ints(array_of(node, 1, axis))[0], blob.rank)
    if blob.layout != CHANNELS_FIRST or place == 0:
        blob = context.source_order(blob)
    # without their channels, channels-first data lie as the source has them
    loses_channels = place == blob.rank - 1
    layout = SOURCE if loses_channels or blob.rank < 4 else blob.layout
    where = blob.axis(place)
    kind = "argMax" if node.op == "ArgMax" else "argMin"
    output = context.layer(kind, blob, layout=layout, axis=where, removeDim=True)
    return scalar(output) if blob.rank == 1 else output


@op("TopKV2", raw=True)
def top_k(context: Lowering, node: Node, x: Operand, k: Operand) -> tuple[Blob, ...]:
    """Along the last axis; equal values keep their order."""
    node.attrs.get("sorted")
    node.attrs.get("index_type")
    count = ints(array_of(node, 1, k))[0]
    blob = source(context, x)
    if not 1 <= count <= extent(blob, -1):
        raise ConversionError(f"k={count} of {extent(blob, -1)} values")
    return context.outputs(2, "topK", blob, layout=SOURCE, axis=-1, K=count, useBottomK=False)


@op("Cumsum", constants=(1,))
def cumsum(context: Lowering, node: Node, x: Blob, axis: Array) -> Blob:
    return context.layer(
        "cumSum",
        x,
        layout=SOURCE,
        axis=positive(ints(axis)[0], x.rank),
        excludeFinalSum=bool(node.attrs.get("exclusive", False)),
        reverse=bool(node.attrs.get("reverse", False)),
    )


@op("InTopKV2", raw=True)
def in_top_k(
    context: Lowering, node: Node, predictions: Operand, targets: Operand, k: Operand
) -> Blob:
    """Whether fewer than k predictions are above that for the target."""
    blob = source(context, predictions)
    places = context.expand(source(context, targets), 1)
    chosen = context.layer("gatherAlongAxis", blob, places, layout=SOURCE, axis=1)
    above = context.emit("greaterThan", blob, chosen)
    count = context.reduce("reduceSum", above, (1,), keep=False)
    limit = float(ints(array_of(node, 2, k))[0])
    return context.emit("lessThan", count, alpha=limit)


@op("Cumprod", constants=(1,))
def cumprod(context: Lowering, node: Node, x: Blob, axis: Array) -> Blob:
    """Multiplies one entry after another."""
    place = positive(ints(axis)[0], x.rank)
    count = extent(x, place)
    exclusive, reverse = (bool(node.attrs.get(n, False)) for n in ("exclusive", "reverse"))
    parts = context.split(x, count, place)
    order = parts[::-1] if reverse else parts
    ones = context.emit("fillLike", order[0], value=1.0)
    factors = [ones, *order[:-1]] if exclusive else order
    outputs = list(
        itertools.accumulate(factors, lambda a, b: joint(context, "multiplyBroadcastable", a, b))
    )
    return joined(context, outputs[::-1] if reverse else outputs, place)


@op("NthElement", raw=True)
def nth_element(context: Lowering, node: Node, x: Operand, n: Operand) -> Blob:
    """The value at an index of the sorted last axis."""
    place = ints(array_of(node, 1, n))[0]
    blob = source(context, x)
    if not 0 <= place < extent(blob, -1):
        raise ConversionError(f"n={place} of {extent(blob, -1)} values")
    values, _ = context.outputs(
        2,
        "topK",
        blob,
        layout=SOURCE,
        axis=-1,
        K=place + 1,
        useBottomK=not node.attrs.get("reverse", False),
    )
    output = sliced(context, values, [place], [place + 1], [blob.rank - 1], None)
    if blob.rank == 1:
        return scalar(output)
    return context.layer("squeeze", output, layout=SOURCE, axes=(-1,))
