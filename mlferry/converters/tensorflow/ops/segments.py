"""Sums and extremes of rows with the same segment number, and rows sorted by it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry.converters.elementwise import FLOAT_MAX
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of, ints, known, rank, shaped, vector
from mlferry.converters.slices import sliced
from mlferry.converters.tensorflow.ops.registry import RANGES, joint, op, source
from mlferry.converters.values import SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError

_MODES = {"Sum": "SCATTER_ADD", "Prod": "SCATTER_MUL", "Max": "SCATTER_MAX", "Min": "SCATTER_MIN"}


def _neutral(kind: str, dtype: str) -> float:
    """The initial value of a row."""
    least, most = RANGES.get(dtype, (-FLOAT_MAX, FLOAT_MAX))
    return {"Sum": 0.0, "Prod": 1.0, "Max": float(least), "Min": float(most)}[kind]


def _gathered(
    context: Lowering, kind: str, x: Blob, ids: Operand, count: int, neutral: float
) -> Blob:
    """Rows of the first axis combined by their numbers; a last row takes negative ones."""
    _, *rest = known(x)
    start = context.filled((count + 1, *rest), neutral)
    if isinstance(ids, Constant):
        array = ids.array.ravel()
        numbers = context.constant(np.where(array < 0, count, array))
    else:
        below = context.emit("lessThan", ids, alpha=0.0)
        last = Constant("", np.float32(count))
        numbers = joint(context, "whereBroadcastable", below, last, ids)
    output = context.layer("scatter", start, numbers, x, layout=SOURCE, axis=0, mode=_MODES[kind])
    return sliced(context, output, [0], [count], [0], None)


@op(*(f"Segment{kind}" for kind in (*_MODES, "Mean")), raw=True)
def segment(context: Lowering, node: Node, x: Operand, ids: Operand) -> Blob:
    """Takes sorted numbers; segments without rows are 0, or 1 for a product."""
    kind = node.op.removeprefix("Segment")
    array = array_of(node, 1, ids).ravel()
    blob = source(context, x)
    if not array.size:
        raise ConversionError("no segments: a result without elements")
    count = int(array[-1]) + 1
    counts = np.bincount(array, minlength=count).reshape(-1, *(1,) * (blob.rank - 1))
    joins = "Sum" if kind == "Mean" else kind
    neutral = _neutral(joins, node.inputs[0].dtype)
    output = _gathered(context, joins, blob, ids, count, neutral)
    if kind == "Mean":
        return joint(
            context, "divideBroadcastable", output, context.constant(np.maximum(counts, 1))
        )
    if kind in ("Max", "Min") and not counts.all():
        return joint(context, "multiplyBroadcastable", output, context.constant(counts > 0))
    return output


@op(*(f"UnsortedSegment{kind}" for kind in _MODES), raw=True)
def unsorted_segment(
    context: Lowering, node: Node, x: Operand, ids: Operand, count: Operand
) -> Blob:
    """Takes numbers in any order; rows with negative ones are dropped."""
    kind = node.op.removeprefix("UnsortedSegment")
    number = ints(array_of(node, 2, count))[0]
    blob = source(context, x)
    axes = ids.array.ndim if isinstance(ids, Constant) else rank(ids)
    rows = _rows(context, blob, axes)
    numbers = (
        ids if isinstance(ids, Constant) else shaped(context, source(context, ids), rows.known[:1])
    )
    neutral = _neutral(kind, node.inputs[0].dtype)
    return _gathered(context, kind, rows, numbers, number, neutral)


def _counted(context: Lowering, x: Blob, size: int, weights: Blob | None = None) -> Blob:
    """The number of values that are 0, 1, ...; each counts once, or by its weight."""
    column = shaped(context, x, (math.prod(known(x)), 1))
    hits = joint(context, "equal", column, context.constant(np.arange(size)[None]))
    if weights is not None:
        hits = joint(context, "multiplyBroadcastable", hits, shaped(context, weights, column.known))
    return context.reduce("reduceSum", hits, (0,), keep=False)


@op("Bincount", raw=True)
def bincount(context: Lowering, node: Node, x: Operand, size: Operand, weights: Operand) -> Blob:
    plain = isinstance(weights, Constant) and not weights.array.size
    factor = None if plain else source(context, weights)
    return _counted(context, source(context, x), ints(array_of(node, 1, size))[0], factor)


@op("HistogramFixedWidth", raw=True)
def histogram(context: Lowering, node: Node, x: Operand, ends: Operand, bins: Operand) -> Blob:
    """Values beyond the range count in the first and the last bin."""
    count = ints(array_of(node, 2, bins))[0]
    least, most = (float(n) for n in array_of(node, 1, ends).ravel())
    moved = joint(
        context, "subtractBroadcastable", source(context, x), Constant("", np.float32(least))
    )
    step = Constant("", np.float32((most - least) / count))
    places = context.emit("floor", joint(context, "divideBroadcastable", moved, step))
    limited = context.emit("clip", places, minVal=0.0, maxVal=float(count - 1))
    return _counted(context, limited, count)


@op("SparseTensorDenseAdd", raw=True)
def sparse_add(
    context: Lowering, node: Node, indices: Operand, values: Operand, shape: Operand, x: Operand
) -> Blob:
    return context.layer(
        "scatterND",
        source(context, x),
        source(context, indices),
        vector(source(context, values)),
        layout=SOURCE,
        mode="SCATTER_ADD",
    )


def _rows(context: Lowering, x: Blob, axes: int) -> Blob:
    """The first axes as one."""
    shape = known(x)
    return shaped(context, x, (math.prod(shape[:axes]), *shape[axes:]))


@op("DynamicPartition", raw=True)
def dynamic_partition(context: Lowering, node: Node, x: Operand, partitions: Operand) -> list[Any]:
    """The rows of each number, which must be known."""
    array = array_of(node, 1, partitions)
    rows_of_x = _rows(context, source(context, x), array.ndim)
    results: list[Any] = []
    for number in range(node.attrs["num_partitions"]):
        places = np.flatnonzero(array.ravel() == number)
        results.append(
            context.gather(rows_of_x, context.constant(places), 0)
            if places.size
            else np.zeros((0, *known(rows_of_x)[1:]), np.float32)
        )
    return results


def _stitched(context: Lowering, x: Blob, axes: int) -> Blob:
    """The rows of one operand whose indices have this many axes."""
    if axes:
        return _rows(context, x, axes)
    return shaped(context, x, (1, *known(x)))


@op("DynamicStitch", "ParallelDynamicStitch", raw=True)
def dynamic_stitch(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """Rows at known indices; for equal indices, the later row stays."""
    node.attrs.get("N")
    half = len(operands) // 2
    places = [array_of(node, place, x) for place, x in enumerate(operands[:half])]
    pairs = zip(places, operands[half:], strict=True)
    parts = [_stitched(context, source(context, x), at.ndim) for at, x in pairs if at.size]
    targets = np.concatenate([at.ravel() for at in places])
    order = np.zeros(int(targets.max()) + 1, np.int64)
    order[targets] = np.arange(targets.size)
    whole = parts[0] if len(parts) == 1 else context.concat(parts, 0)
    return context.gather(whole, context.constant(order), 0)
