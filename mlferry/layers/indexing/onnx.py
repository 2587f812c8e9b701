"""Gather, scatter, sorting, and other layers that use indices.

Indices are floats; negative ones count from the end, in ONNX as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.numerics.shapes import axis_of
from mlferry.onnx_graph.emitter import FARTHEST, INT64, Emitter
from mlferry.refusals import refuse

_REDUCTION = {
    "SCATTER_UPDATE": None,
    "SCATTER_ADD": "add",
    "SCATTER_SUB": "add",
    "SCATTER_MUL": "mul",
    "SCATTER_DIV": "mul",
    "SCATTER_MAX": "max",
    "SCATTER_MIN": "min",
}
_TURNED = {"SCATTER_SUB": "Neg", "SCATTER_DIV": "Reciprocal"}


def _scattered(
    emitter: Emitter,
    params: Params,
    node: str,
    x: str,
    indices: str,
    updates: str,
    axis: int | None = None,
) -> str:
    """Subtracting is adding the negative, dividing multiplying by the inverse."""
    turn = _TURNED.get(params.mode)
    values = emitter.node(turn, updates) if turn else updates
    reduction = _REDUCTION[params.mode]
    y = emitter.node(node, x, indices, values, axis=axis, reduction=reduction)
    emitter.shapes[y] = emitter.shape(x)
    return y


@op("gather")
def gather(emitter: Emitter, params: Params, x: str, indices: str) -> str:
    axis = axis_of(params.axis, emitter.rank(x))
    return emitter.node(
        "Gather", x, emitter.whole(_as_given(emitter, indices, emitter.shape(x)[axis])), axis=axis
    )


def _as_given(emitter: Emitter, indices: str, extent: int | None) -> str:
    """Undo x + extent * (x < 0), which makes negative indices positive: ONNX does so itself."""
    total = emitter.made.get(indices)
    if total is None or total.op != "Add":
        return indices
    before, more = total.inputs
    for op_type, number in (("Mul", extent), ("Cast", None), ("Less", 0)):
        node = emitter.made.get(more)
        if node is None or node.op != op_type:
            return indices
        other = emitter.known(node.inputs[-1])
        if number is not None and (other is None or other.size != 1 or other != number):
            return indices
        more = node.inputs[0]
    return before if more == before and extent is not None else indices


@op("scatter")
def scatter(emitter: Emitter, params: Params, x: str, indices: str, updates: str) -> str:
    """The inverse of `gather`: slices of the first input are updated, one element at a time."""
    axis = axis_of(params.axis, emitter.rank(x))
    count = emitter.rank(indices)
    flat = emitter.extents(updates)
    rows = emitter.reshape(updates, [*flat[:axis], -1, *flat[axis + count :]])
    places = emitter.reshape(
        emitter.whole(indices), [*[1] * axis, -1, *[1] * (emitter.rank(x) - axis - 1)]
    )
    spread = emitter.node("Expand", places, emitter.shape_vector(rows))
    return _scattered(emitter, params, "ScatterElements", x, spread, rows, axis)


@op("gatherND", limits="indices whose number of axes is not known")
def gather_nd(emitter: Emitter, params: Params, x: str, indices: str) -> str:
    """The last axis of the indices is a position in the first axes of the data."""
    depth = emitter.shape(indices)[-1]
    if depth is None:
        raise refuse("how many axes an index has is not known")
    y = emitter.node("GatherND", x, emitter.whole(indices))
    return emitter.at_least_1d(y, (*emitter.shape(indices)[:-1], *emitter.shape(x)[depth:]))


@op("scatterND", limits="indices whose number of axes is not known")
def scatter_nd(emitter: Emitter, params: Params, x: str, indices: str, updates: str) -> str:
    depth = emitter.shape(indices)[-1]
    if depth is None:
        raise refuse("how many axes an index has is not known")
    known = emitter.known(indices)
    if (
        known is not None
        and len(np.unique(known.reshape(-1, depth), axis=0)) == known.size // depth
    ):
        target = [*emitter.extents(indices)[:-1], *emitter.extents(x)[depth:]]
        return _scattered(
            emitter,
            params,
            "ScatterND",
            x,
            emitter.whole(indices),
            emitter.reshape(updates, target),
        )
    # Threads of onnxruntime's ScatterND race for places that are named twice; its ScatterElements
    # goes through the updates in their order: the first axes become one, points places in it.
    inner = _count(emitter, emitter.extents(x)[depth:])
    table = emitter.reshape(x, [-1, inner])
    rows = emitter.reshape(updates, [-1, inner])
    places = emitter.reshape(_places(emitter, indices, emitter.extents(x)[:depth]), [-1, 1])
    spread = emitter.node("Expand", places, emitter.shape_vector(rows))
    return emitter.reshape(
        _scattered(emitter, params, "ScatterElements", table, spread, rows, 0), emitter.extents(x)
    )


def _count(emitter: Emitter, extents: Sequence[int | str]) -> int | str:
    """The product of sizes."""
    numbers = [n for n in extents if isinstance(n, int)]
    if len(numbers) == len(extents):
        return math.prod(numbers)
    return emitter.node("ReduceProd", emitter.vector(extents), keepdims=1)


def _places(emitter: Emitter, indices: str, extents: Sequence[int | str]) -> str:
    """The places of points [..., axes] in row-major order; one past the last for points outside."""
    whole, limits, zero = emitter.whole(indices), emitter.vector(extents), emitter.integers([0])
    positive = emitter.node(
        "Where", emitter.node("Less", whole, zero), emitter.node("Add", whole, limits), whole
    )
    inside = emitter.node(
        "And",
        emitter.node("GreaterOrEqual", positive, zero),
        emitter.node("Less", positive, limits),
    )
    strides = emitter.vector([_count(emitter, extents[axis + 1 :]) for axis in range(len(extents))])
    last = emitter.integers([-1])
    place = emitter.node("ReduceSum", emitter.node("Mul", positive, strides), last, keepdims=0)
    all_inside = emitter.node("ReduceMin", emitter.node("Cast", inside, to=INT64), last, keepdims=0)
    behind = emitter.vector([_count(emitter, extents)])
    return emitter.node(
        "Where", emitter.node("Equal", all_inside, emitter.integers([1])), place, behind
    )


@op("gatherAlongAxis")
def gather_along_axis(emitter: Emitter, params: Params, x: str, indices: str) -> str:
    axis = axis_of(params.axis, emitter.rank(x))
    return emitter.node("GatherElements", x, emitter.whole(indices), axis=axis)


@op("scatterAlongAxis")
def scatter_along_axis(emitter: Emitter, params: Params, x: str, indices: str, updates: str) -> str:
    axis = axis_of(params.axis, emitter.rank(x))
    return _scattered(emitter, params, "ScatterElements", x, emitter.whole(indices), updates, axis)


@op("whereNonZero")
def where_non_zero(emitter: Emitter, params: Params, x: str) -> str:
    """The positions of values other than 0, one per row, in row-major order."""
    places = emitter.node("NonZero", x)
    emitter.shapes[places] = (emitter.rank(x), None)
    return emitter.from_whole(emitter.transpose(places, [1, 0]))


@op("whereBroadcastable")
def where_broadcastable(
    emitter: Emitter, params: Params, condition: str, left: str, right: str
) -> str:
    return emitter.node("Where", emitter.flag(condition), left, right)


@op("oneHot")
def one_hot(emitter: Emitter, params: Params, x: str, *size: str) -> str:
    """`onValue` at the index, `offValue` elsewhere, and everywhere for an index outside."""
    axis = axis_of(params.axis, emitter.rank(x) + 1)
    behind = [1] * (emitter.rank(x) - axis)
    if size:
        places = emitter.count_up(emitter.whole(size[0]))
    else:
        places = emitter.integers(range(params.oneHotVectorSize))
    hit = emitter.node(
        "Equal", emitter.expand(emitter.whole(x), [axis]), emitter.reshape(places, [-1, *behind])
    )
    if (params.onValue, params.offValue) == (1, 0):
        return emitter.from_flag(hit)
    return emitter.node(
        "Where", hit, emitter.number(params.onValue), emitter.number(params.offValue)
    )


@op("topK")
def top_k(emitter: Emitter, params: Params, x: str, *count: str) -> tuple[str, str]:
    """The largest values, largest first, and their indices; or the smallest."""
    k = emitter.reshape(emitter.whole(count[0]), [1]) if count else emitter.integers([params.K])
    return _sorted(
        emitter, x, k, axis_of(params.axis, emitter.rank(x)), largest=not params.useBottomK
    )


def _sorted(emitter: Emitter, x: str, count: str, axis: int, *, largest: bool) -> tuple[str, str]:
    """onnxruntime sorts stably, like Core ML."""
    values, order = emitter.nodes("TopK", [x, count], 2, axis=axis, largest=int(largest), sorted=1)
    return values, emitter.from_whole(order)


@op("argSort")
def arg_sort(emitter: Emitter, params: Params, x: str) -> str:
    axis = axis_of(params.axis, emitter.rank(x))
    return _sorted(
        emitter, x, emitter.vector([emitter.extent(x, axis)]), axis, largest=params.descending
    )[1]


@op("argMax", "argMin")
def arg_extreme(emitter: Emitter, params: Params, x: str) -> str:
    """The first index of equal values."""
    axis = axis_of(params.axis, emitter.rank(x))
    name = "ArgMax" if params.kind == "argMax" else "ArgMin"
    y = emitter.node(name, x, axis=axis, keepdims=int(not params.removeDim))
    if params.removeDim:
        shape = emitter.shape(x)
        y = emitter.at_least_1d(y, (*shape[:axis], *shape[axis + 1 :]))
    return emitter.from_whole(y)


@op("cumSum")
def cum_sum(emitter: Emitter, params: Params, x: str, *axis: str) -> str:
    """`excludeFinalSum` shifts the sums by one; `reverse` sums from the end."""
    along = (
        emitter.reshape(emitter.whole(axis[0]), [])
        if axis
        else emitter.constant(np.int64(params.axis))
    )
    return emitter.node(
        "CumSum", x, along, exclusive=int(params.excludeFinalSum), reverse=int(params.reverse)
    )


@op("reverse")
def reverse(emitter: Emitter, params: Params, x: str) -> str:
    axes = [axis for axis, flag in enumerate(params.reverseDim) if flag]
    if not axes:
        return x
    columns = ([-1] * len(axes), [-FARTHEST] * len(axes), axes, [-1] * len(axes))
    return emitter.node("Slice", x, *(emitter.integers(column) for column in columns))


@op("reverseSeq")
def reverse_seq(emitter: Emitter, params: Params, x: str, lengths: str) -> str:
    """Reverse as much of each sequence in the batch as its length says."""
    rank = emitter.rank(x)
    batch, sequence = axis_of(params.batchAxis, rank), axis_of(params.sequenceAxis, rank)
    order = [batch, sequence, *(axis for axis in range(rank) if axis not in (batch, sequence))]
    axes_first = emitter.transpose(x, order)
    # reversing one entry changes nothing; onnxruntime 1.17 leaves length 0 undefined
    counts, one = emitter.whole(lengths), emitter.integers([1])
    counts = emitter.node(
        "Where", emitter.node("Equal", counts, emitter.integers([0])), one, counts
    )
    y = emitter.node("ReverseSequence", axes_first, counts, batch_axis=0, time_axis=1)
    emitter.shapes[y] = emitter.shape(axes_first)
    return emitter.transpose(y, [order.index(axis) for axis in range(rank)])


def _triangle(emitter: Emitter, x: str, k: int, *, upper: bool) -> str:
    return emitter.node("Trilu", x, emitter.constant(np.int64(k)), upper=int(upper))


@op("matrixBandPart")
def matrix_band_part(emitter: Emitter, params: Params, x: str) -> str:
    """Keep this many diagonals below and above the main one; a negative number keeps all."""
    if params.numUpper >= 0:
        x = _triangle(emitter, x, params.numUpper, upper=False)
    return _triangle(emitter, x, -params.numLower, upper=True) if params.numLower >= 0 else x


@op("lowerTriangular", "upperTriangular")
def triangular(emitter: Emitter, params: Params, x: str) -> str:
    """Zero above diagonal `k`, or below it."""
    return _triangle(emitter, x, params.k, upper=params.kind == "upperTriangular")
