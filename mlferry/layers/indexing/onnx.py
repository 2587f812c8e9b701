"""Gather, scatter, sorting, and what else works through indices.

Indices travel as floats; negative ones count from the end, in ONNX as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlferry.layers.exports import op, refuse
from mlferry.layers.params import Params
from mlferry.numerics.shapes import axis_of
from mlferry.onnx_graph.emitter import FARTHEST, INT64, Emitter

_REDUCTION = {
    "SCATTER_UPDATE": None, "SCATTER_ADD": "add", "SCATTER_SUB": "add", "SCATTER_MUL": "mul",
    "SCATTER_DIV": "mul", "SCATTER_MAX": "max", "SCATTER_MIN": "min",
}  # fmt: skip
_TURNED = {"SCATTER_SUB": "Neg", "SCATTER_DIV": "Reciprocal"}


def _scattered(
    e: Emitter, p: Params, node: str, x: str, indices: str, updates: str, axis: int | None = None
) -> str:
    """Subtracting is adding the negative, dividing multiplying by the inverse."""
    turn = _TURNED.get(p.mode)
    values = e.node(turn, updates) if turn else updates
    reduction = _REDUCTION[p.mode]
    y = e.node(node, x, indices, values, axis=axis, reduction=reduction)
    e.shapes[y] = e.shape(x)
    return y


@op("gather")
def gather(e: Emitter, p: Params, x: str, indices: str) -> str:
    axis = axis_of(p.axis, e.rank(x))
    return e.node("Gather", x, e.whole(_as_given(e, indices, e.shape(x)[axis])), axis=axis)


def _as_given(e: Emitter, indices: str, extent: int | None) -> str:
    """Indices before layers made negative ones positive, x + extent * (x < 0): ONNX does so."""
    total = e.made.get(indices)
    if total is None or total.op != "Add":
        return indices
    before, more = total.inputs
    for op_type, number in (("Mul", extent), ("Cast", None), ("Less", 0)):
        node = e.made.get(more)
        if node is None or node.op != op_type:
            return indices
        other = e.known(node.inputs[-1])
        if number is not None and (other is None or other.size != 1 or other != number):
            return indices
        more = node.inputs[0]
    return before if more == before and extent is not None else indices


@op("scatter")
def scatter(e: Emitter, p: Params, x: str, indices: str, updates: str) -> str:
    """The inverse of `gather`: slices of the first input are updated, one element at a time."""
    axis = axis_of(p.axis, e.rank(x))
    count = e.rank(indices)
    flat = e.extents(updates)
    rows = e.reshape(updates, [*flat[:axis], -1, *flat[axis + count :]])
    places = e.reshape(e.whole(indices), [*[1] * axis, -1, *[1] * (e.rank(x) - axis - 1)])
    spread = e.node("Expand", places, e.shape_vector(rows))
    return _scattered(e, p, "ScatterElements", x, spread, rows, axis)


@op("gatherND", limits="indices whose number of axes is not known")
def gather_nd(e: Emitter, p: Params, x: str, indices: str) -> str:
    """The last axis of the indices is a position in the first axes of the data."""
    depth = e.shape(indices)[-1]
    if depth is None:
        raise refuse("how many axes an index has is not known")
    y = e.node("GatherND", x, e.whole(indices))
    return e.at_least_1d(y, (*e.shape(indices)[:-1], *e.shape(x)[depth:]))


@op("scatterND", limits="indices whose number of axes is not known")
def scatter_nd(e: Emitter, p: Params, x: str, indices: str, updates: str) -> str:
    depth = e.shape(indices)[-1]
    if depth is None:
        raise refuse("how many axes an index has is not known")
    known = e.known(indices)
    if (
        known is not None
        and len(np.unique(known.reshape(-1, depth), axis=0)) == known.size // depth
    ):
        wanted = [*e.extents(indices)[:-1], *e.extents(x)[depth:]]
        return _scattered(e, p, "ScatterND", x, e.whole(indices), e.reshape(updates, wanted))
    # Threads of onnxruntime's ScatterND race for a place that is named twice, its ScatterElements
    # goes through the updates in their order: the first axes become one, points places in it.
    inner = _count(e, e.extents(x)[depth:])
    table = e.reshape(x, [-1, inner])
    rows = e.reshape(updates, [-1, inner])
    places = e.reshape(_places(e, indices, e.extents(x)[:depth]), [-1, 1])
    spread = e.node("Expand", places, e.shape_vector(rows))
    return e.reshape(_scattered(e, p, "ScatterElements", table, spread, rows, 0), e.extents(x))


def _count(e: Emitter, extents: Sequence[int | str]) -> int | str:
    """The product of sizes."""
    numbers = [n for n in extents if isinstance(n, int)]
    if len(numbers) == len(extents):
        return math.prod(numbers)
    return e.node("ReduceProd", e.vector(extents), keepdims=1)


def _places(e: Emitter, indices: str, extents: Sequence[int | str]) -> str:
    """The place of points [..., axes] in row-major order; one behind the last for any outside."""
    whole, limits, zero = e.whole(indices), e.vector(extents), e.integers([0])
    positive = e.node("Where", e.node("Less", whole, zero), e.node("Add", whole, limits), whole)
    inside = e.node(
        "And", e.node("GreaterOrEqual", positive, zero), e.node("Less", positive, limits)
    )
    strides = e.vector([_count(e, extents[axis + 1 :]) for axis in range(len(extents))])
    last = e.integers([-1])
    place = e.node("ReduceSum", e.node("Mul", positive, strides), last, keepdims=0)
    all_inside = e.node("ReduceMin", e.node("Cast", inside, to=INT64), last, keepdims=0)
    behind = e.vector([_count(e, extents)])
    return e.node("Where", e.node("Equal", all_inside, e.integers([1])), place, behind)


@op("gatherAlongAxis")
def gather_along_axis(e: Emitter, p: Params, x: str, indices: str) -> str:
    axis = axis_of(p.axis, e.rank(x))
    return e.node("GatherElements", x, e.whole(indices), axis=axis)


@op("scatterAlongAxis")
def scatter_along_axis(e: Emitter, p: Params, x: str, indices: str, updates: str) -> str:
    axis = axis_of(p.axis, e.rank(x))
    return _scattered(e, p, "ScatterElements", x, e.whole(indices), updates, axis)


@op("whereNonZero")
def where_non_zero(e: Emitter, p: Params, x: str) -> str:
    """The positions of values other than 0, one a row, in row-major order."""
    places = e.node("NonZero", x)
    e.shapes[places] = (e.rank(x), None)
    return e.from_whole(e.transpose(places, [1, 0]))


@op("whereBroadcastable")
def where_broadcastable(e: Emitter, p: Params, condition: str, left: str, right: str) -> str:
    return e.node("Where", e.flag(condition), left, right)


@op("oneHot")
def one_hot(e: Emitter, p: Params, x: str, *size: str) -> str:
    """`onValue` at the index, `offValue` elsewhere, and everywhere for an index outside."""
    axis = axis_of(p.axis, e.rank(x) + 1)
    behind = [1] * (e.rank(x) - axis)
    if size:
        limit = e.reshape(e.whole(size[0]), [])
        places = e.node("Range", e.constant(np.int64(0)), limit, e.constant(np.int64(1)))
        e.shapes[places] = (None,)
    else:
        places = e.integers(range(p.oneHotVectorSize))
    hit = e.node("Equal", e.unsqueeze(e.whole(x), [axis]), e.reshape(places, [-1, *behind]))
    if (p.onValue, p.offValue) == (1, 0):
        return e.from_flag(hit)
    return e.node("Where", hit, e.number(p.onValue), e.number(p.offValue))


@op("topK")
def top_k(e: Emitter, p: Params, x: str, *count: str) -> tuple[str, str]:
    """The largest values, largest first, and their indices; or the smallest."""
    k = e.reshape(e.whole(count[0]), [1]) if count else e.integers([p.K])
    return _sorted(e, x, k, axis_of(p.axis, e.rank(x)), largest=not p.useBottomK)


def _sorted(e: Emitter, x: str, count: str, axis: int, *, largest: bool) -> tuple[str, str]:
    """onnxruntime puts the first of equals first, as Core ML does."""
    values, order = e.nodes("TopK", [x, count], 2, axis=axis, largest=int(largest), sorted=1)
    return values, e.from_whole(order)


@op("argSort")
def arg_sort(e: Emitter, p: Params, x: str) -> str:
    axis = axis_of(p.axis, e.rank(x))
    return _sorted(e, x, e.vector([e.extent(x, axis)]), axis, largest=p.descending)[1]


@op("argMax", "argMin")
def arg_extreme(e: Emitter, p: Params, x: str) -> str:
    """The first index among equals."""
    axis = axis_of(p.axis, e.rank(x))
    name = "ArgMax" if p.kind == "argMax" else "ArgMin"
    y = e.node(name, x, axis=axis, keepdims=int(not p.removeDim))
    if p.removeDim:
        shape = e.shape(x)
        y = e.at_least_1d(y, (*shape[:axis], *shape[axis + 1 :]))
    return e.from_whole(y)


@op("cumSum")
def cum_sum(e: Emitter, p: Params, x: str, *axis: str) -> str:
    """`excludeFinalSum` shifts the sums by one; `reverse` sums from the end."""
    along = e.reshape(e.whole(axis[0]), []) if axis else e.constant(np.int64(p.axis))
    return e.node("CumSum", x, along, exclusive=int(p.excludeFinalSum), reverse=int(p.reverse))


@op("reverse")
def reverse(e: Emitter, p: Params, x: str) -> str:
    axes = [axis for axis, flag in enumerate(p.reverseDim) if flag]
    if not axes:
        return x
    columns = ([-1] * len(axes), [-FARTHEST] * len(axes), axes, [-1] * len(axes))
    return e.node("Slice", x, *(e.integers(column) for column in columns))


@op("reverseSeq")
def reverse_seq(e: Emitter, p: Params, x: str, lengths: str) -> str:
    """For each entry of the batch axis, as much of the sequence as its length says."""
    rank = e.rank(x)
    batch, sequence = axis_of(p.batchAxis, rank), axis_of(p.sequenceAxis, rank)
    order = [batch, sequence, *(axis for axis in range(rank) if axis not in (batch, sequence))]
    moved = e.transpose(x, order)
    # one entry reversed is none: onnxruntime 1.17 leaves a sequence of length 0 undefined
    counts, one = e.whole(lengths), e.integers([1])
    counts = e.node("Where", e.node("Equal", counts, e.integers([0])), one, counts)
    y = e.node("ReverseSequence", moved, counts, batch_axis=0, time_axis=1)
    e.shapes[y] = e.shape(moved)
    return e.transpose(y, [order.index(axis) for axis in range(rank)])


def _triangle(e: Emitter, x: str, k: int, *, upper: bool) -> str:
    return e.node("Trilu", x, e.constant(np.int64(k)), upper=int(upper))


@op("matrixBandPart")
def matrix_band_part(e: Emitter, p: Params, x: str) -> str:
    """Keep so many diagonals below and above the main one; all of them for a negative number."""
    if p.numUpper >= 0:
        x = _triangle(e, x, p.numUpper, upper=False)
    return _triangle(e, x, -p.numLower, upper=True) if p.numLower >= 0 else x


@op("lowerTriangular")
def lower_triangular(e: Emitter, p: Params, x: str) -> str:
    """Zero above diagonal `k`."""
    return _triangle(e, x, p.k, upper=False)


@op("upperTriangular")
def upper_triangular(e: Emitter, p: Params, x: str) -> str:
    """Zero below diagonal `k`."""
    return _triangle(e, x, p.k, upper=True)
