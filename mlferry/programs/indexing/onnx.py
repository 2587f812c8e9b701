"""Gathering, scattering, sorting and selecting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.onnx_graph import boxes as overlaps
from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, cast, counted, export, int32, inverse, moved_axis, scalar


@export("gather", moves=True)
def gather(
    emitter: Emitter,
    call: Call,
    x: str,
    indices: str,
    axis: int,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> str:
    if not batch_dims:
        return emitter.node("Gather", x, indices, axis=axis)
    rank, own = emitter.rank(x), emitter.rank(indices) - batch_dims
    axis %= rank
    order = moved_axis(rank, axis, batch_dims)
    rows = emitter.node(
        "GatherND",
        emitter.transpose(x, order),
        emitter.expand(emitter.whole(indices), [-1]),
        batch_dims=batch_dims,
    )
    between = axis - batch_dims  # axes of x before the gathered one, now after the indices
    first, last = batch_dims + own, batch_dims + own + between
    places = [*range(batch_dims), *range(first, last), *range(batch_dims, first)]
    return emitter.transpose(rows, [*places, *range(last, rank - 1 + own)])


@export("gather_nd", moves=True)
def gather_nd(
    emitter: Emitter,
    call: Call,
    x: str,
    indices: str,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> str:
    return emitter.node("GatherND", x, emitter.whole(indices), batch_dims=batch_dims)


@export("gather_along_axis", moves=True)
def gather_along_axis(
    emitter: Emitter, call: Call, x: str, indices: str, axis: int, validate_indices: bool = False
) -> str:
    return emitter.node("GatherElements", x, indices, axis=axis)


# ---- scattering ----------------------------------------------------------------------------------

Write = Callable[[str, str, str], str]  # data, updates and how to combine them
_REDUCTIONS = {
    "update": "none",
    "add": "add",
    "sub": "add",
    "mul": "mul",
    "max": "max",
    "min": "min",
}


def _scattered(
    emitter: Emitter, call: Call, data: str, updates: str, mode: str, write: Write
) -> str:
    """Subtraction adds the negated updates; divisors are multiplied first."""
    if mode != "div":
        values = emitter.node("Neg", updates) if mode == "sub" else updates
        return write(data, values, _REDUCTIONS[mode])
    ones = emitter.node("ConstantOfShape", emitter.shape_vector(data), value=np.ones(1, np.float64))
    factors = write(ones, cast(emitter, updates, "float64"), "mul")
    return cast(emitter, emitter.node("Div", cast(emitter, data, "float64"), factors), call.dtype)


@export("scatter")
def scatter(
    emitter: Emitter,
    call: Call,
    data: str,
    indices: str,
    updates: str,
    axis: int,
    mode: str,
    validate_indices: bool = False,
) -> str:
    """Slices of an axis, which is moved to the front."""
    rank, own = emitter.rank(data), emitter.rank(indices)
    axis %= rank
    order = moved_axis(rank, axis, 0)
    to_the_front = [*range(axis, axis + own), *range(axis), *range(axis + own, rank - 1 + own)]
    rows = emitter.expand(emitter.whole(indices), [-1])

    def write(to: str, values: str, reduction: str) -> str:
        y = emitter.node(
            "ScatterND",
            emitter.node("Transpose", to, perm=order),
            rows,
            emitter.node("Transpose", values, perm=to_the_front),
            reduction=reduction,
        )
        return emitter.node("Transpose", y, perm=inverse(order))

    return _scattered(emitter, call, data, updates, mode, write)


@export("scatter_along_axis")
def scatter_along_axis(
    emitter: Emitter,
    call: Call,
    data: str,
    indices: str,
    updates: str,
    axis: int,
    mode: str,
    validate_indices: bool = False,
) -> str:
    def write(to: str, values: str, reduction: str) -> str:
        return emitter.node("ScatterElements", to, indices, values, axis=axis, reduction=reduction)

    return _scattered(emitter, call, data, updates, mode, write)


@export("scatter_nd")
def scatter_nd(
    emitter: Emitter,
    call: Call,
    data: str,
    indices: str,
    updates: str,
    mode: str,
    validate_indices: bool = False,
) -> str:
    places = emitter.whole(indices)

    def write(to: str, values: str, reduction: str) -> str:
        return emitter.node("ScatterND", to, places, values, reduction=reduction)

    return _scattered(emitter, call, data, updates, mode, write)


# ---- sorting and selecting -----------------------------------------------------------------------


def _ordered(
    emitter: Emitter, x: str, count: int | str, axis: int, ascending: bool
) -> tuple[str, str]:
    """The first values along an axis, and their places; equal values keep their order."""
    amount = emitter.vector([count])
    values, places = emitter.nodes("TopK", [x, amount], 2, axis=axis, largest=int(not ascending))
    return values, int32(emitter, places)


@export("argsort")
def argsort(emitter: Emitter, call: Call, x: str, axis: int, ascending: bool) -> str:
    return _ordered(emitter, x, emitter.extent(x, axis), axis, ascending)[1]


@export("topk", moves=True)
def topk(
    emitter: Emitter,
    call: Call,
    x: str,
    k: int,
    axis: int,
    ascending: bool,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[str, ...]:
    count = emitter.extent(x, axis) if k == -1 else k
    return _ordered(emitter, x, count, axis, ascending)


@export("one_hot")
def one_hot(
    emitter: Emitter,
    call: Call,
    indices: str,
    one_hot_vector_size: str,
    axis: int,
    on_value: float,
    off_value: float,
) -> str:
    """Indices may count from the end; any others give only `off_value`."""
    known = emitter.known(one_hot_vector_size)
    count: int | str
    if known is None:
        count = emitter.reshape(emitter.whole(one_hot_vector_size), [1])
    else:
        count = int(np.ravel(known)[0])
    size = emitter.vector([count])
    places = emitter.whole(indices)
    below = emitter.node("Less", places, emitter.integers([0]))
    below = emitter.reshape(below, emitter.extents(indices)) if emitter.rank(indices) else below
    places = emitter.node("Where", below, emitter.node("Add", places, size), places)
    emitter.shapes[places] = emitter.shape(indices) or (1,)
    marked = emitter.node("Equal", emitter.expand(places, [-1]), counted(emitter, count))
    carried = "int32" if call.dtype == "bool" else call.dtype
    on, off = (scalar(emitter, value, carried) for value in (on_value, off_value))
    y = emitter.node("Where", marked, on, off)
    if call.dtype == "bool":
        y = cast(emitter, y, "bool")
    rank = emitter.rank(indices) + 1
    if rank == 1:
        return emitter.reshape(y, [-1])
    return emitter.transpose(y, moved_axis(rank, -1, axis))


@export("non_zero")
def non_zero(emitter: Emitter, call: Call, x: str) -> str:
    return int32(emitter, emitter.transpose(emitter.node("NonZero", x), [1, 0]))


@export("cumsum")
def cumsum(emitter: Emitter, call: Call, x: str, axis: int, exclusive: bool, reverse: bool) -> str:
    place = emitter.constant(np.int64(axis))
    return emitter.node("CumSum", x, place, exclusive=int(exclusive), reverse=int(reverse))


@export("non_maximum_suppression", moves=True)
def non_maximum_suppression(
    emitter: Emitter,
    call: Call,
    boxes: str,
    scores: str,
    iou_threshold: float,
    max_boxes: int,
    per_class_suppression: bool,
    score_threshold: float | None = None,
) -> tuple[str, ...]:
    """The best boxes of each sample: at least one, whatever its score."""
    least = overlaps.NO_SCORE if score_threshold is None else score_threshold
    best_boxes, best_scores, indices, counts = overlaps.suppressed(
        emitter,
        boxes,
        scores,
        iou=emitter.constant(np.array([iou_threshold], np.float32)),
        least=emitter.number(least),
        count=emitter.integers([max_boxes]),
        most=max_boxes,
        per_class=per_class_suppression,
    )
    return best_boxes, best_scores, int32(emitter, indices), int32(emitter, counts)


@export("non_maximum_suppression", since=7, moves=True)
def suppression_of_columns(
    emitter: Emitter,
    call: Call,
    boxes: str,
    scores: str,
    iou_threshold: float,
    max_boxes: int,
    per_class_suppression: bool,
) -> tuple[str, ...]:
    """The same with the boxes along the last axis; how many stay is not told."""
    rows, scores_of_rows = (emitter.transpose(x, [0, 2, 1]) for x in (boxes, scores))
    best_boxes, best_scores, indices, _ = non_maximum_suppression(
        emitter, call, rows, scores_of_rows, iou_threshold, max_boxes, per_class_suppression
    )
    columns, scores_of_columns = (
        emitter.transpose(x, [0, 2, 1]) for x in (best_boxes, best_scores)
    )
    return columns, scores_of_columns, indices
