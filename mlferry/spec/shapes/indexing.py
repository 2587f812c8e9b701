"""Gather, scatter, sorting, and what else works through indices."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import (
    Change,
    RankUnknownError,
    Shape,
    axis_of,
    broadcast,
    need_rank,
    replaced,
    rule,
    show,
    size_check,
)


def agree(left: Shape, right: Shape) -> bool:
    """Whether two shapes can be the same."""
    return len(left) == len(right) and all(
        a is None or b is None or a == b for a, b in zip(left, right, strict=True)
    )


@rule("gather")
def gather(p: Params, shape: Shape, indices: Shape) -> list[Shape]:
    axis = axis_of(p.axis, len(shape))
    return [(*shape[:axis], *indices, *shape[axis + 1 :])]


@rule("scatter")
def scatter(p: Params, shape: Shape, indices: Shape, updates: Shape) -> list[Shape]:
    axis = axis_of(p.axis, len(shape))
    wanted = (*shape[:axis], *indices, *shape[axis + 1 :])
    if not agree(wanted, updates):
        raise SpecError(f"updates of shape {show(updates)}; {show(wanted)} is needed")
    return [shape]


def points(shape: Shape, indices: Shape) -> tuple[Shape, Shape]:
    """The shape of the list of points in a multi-index, and of what lies at a point."""
    need_rank(indices, 1, "indices")
    depth = indices[-1]
    if depth is None:
        raise RankUnknownError
    if not 1 <= depth <= len(shape):
        raise SpecError(f"indices of {depth} axes into {show(shape)}")
    return indices[:-1], shape[depth:]


@rule("gatherND")
def gather_nd(p: Params, shape: Shape, indices: Shape) -> list[Shape]:
    outer, inner = points(shape, indices)
    return [(*outer, *inner) or (1,)]


@rule("scatterND")
def scatter_nd(p: Params, shape: Shape, indices: Shape, updates: Shape) -> list[Shape]:
    outer, inner = points(shape, indices)
    if not agree((*outer, *inner) or (1,), updates):
        raise SpecError(f"updates of shape {show(updates)}; {show((*outer, *inner))} is needed")
    return [shape]


def along(p: Params, shape: Shape, indices: Shape) -> None:
    """Check that indices differ from the data in one axis only."""
    axis = axis_of(p.axis, len(shape))
    if not agree(replaced(shape, axis, None), indices):
        raise SpecError(f"indices {show(indices)} for data {show(shape)} along axis {axis}")


@rule("gatherAlongAxis")
def gather_along_axis(p: Params, shape: Shape, indices: Shape) -> list[Shape]:
    along(p, shape, indices)
    return [indices]


@rule("scatterAlongAxis")
def scatter_along_axis(p: Params, shape: Shape, indices: Shape, updates: Shape) -> list[Shape]:
    along(p, shape, indices)
    if not agree(indices, updates):
        raise SpecError(f"indices {show(indices)} and updates {show(updates)} differ")
    return [shape]


@rule("whereNonZero")
def where_non_zero(p: Params, shape: Shape) -> list[Shape]:
    return [(None, len(shape))]


@rule("whereBroadcastable")
def where_broadcastable(p: Params, condition: Shape, left: Shape, right: Shape) -> list[Shape]:
    return [broadcast(condition, left, right)]


@rule("oneHot")
def one_hot(p: Params, shape: Shape, *size: Shape) -> list[Shape]:
    axis = axis_of(p.axis, len(shape) + 1)
    return [(*shape[:axis], None if size else p.oneHotVectorSize, *shape[axis:])]


@rule("topK")
def top_k(p: Params, shape: Shape, *count: Shape) -> list[Shape]:
    axis = axis_of(p.axis, len(shape))
    extent = shape[axis]
    if count:
        return [replaced(shape, axis, None)] * 2
    if not p.K or (extent is not None and extent < p.K):
        raise SpecError(f"K = {p.K} of axis {axis} of {show(shape)}")
    return [replaced(shape, axis, p.K)] * 2


@rule("argMax", "argMin")
def arg_extreme(p: Params, shape: Shape) -> list[Shape]:
    axis = axis_of(p.axis, len(shape))
    if p.removeDim:
        return [(*shape[:axis], *shape[axis + 1 :]) or (1,)]
    return [replaced(shape, axis, 1)]


@rule("argSort")
def arg_sort(p: Params, shape: Shape) -> list[Shape]:
    axis_of(p.axis, len(shape))
    return [shape]


@rule("cumSum")
def cum_sum(p: Params, shape: Shape, *axis: Shape) -> list[Shape]:
    if not axis:
        axis_of(p.axis, len(shape))
    return [shape]


@rule("reverse")
def reverse(p: Params, shape: Shape) -> list[Shape]:
    if len(p.reverseDim) != len(shape):
        raise SpecError(f"{len(p.reverseDim)} flags for the axes of {show(shape)}")
    return [shape]


@rule("reverseSeq")
def reverse_seq(p: Params, shape: Shape, lengths: Shape) -> list[Shape]:
    batch, sequence = (axis_of(axis, len(shape)) for axis in (p.batchAxis, p.sequenceAxis))
    if batch == sequence:
        raise SpecError(f"batch and sequence are the same axis, {batch}")
    if not agree((shape[batch],), lengths):
        raise SpecError(f"lengths {show(lengths)} for axis {batch} of {show(shape)}")
    return [shape]


@rule("matrixBandPart", "lowerTriangular", "upperTriangular")
def of_matrices(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 2)
    return [shape]


_GATHERED = "its constant indices are those of the described size"


@size_check("gather", "scatter", "gatherAlongAxis", "scatterAlongAxis")
def indexed_along(p: Params, change: Change) -> str:
    axis = axis_of(p.axis, len(change.now[0]))
    bound = change.constant[1] and change.varies(axis) and not change.recorded
    return _GATHERED if bound else ""


@size_check("gatherND", "scatterND")
def indexed_at_points(p: Params, change: Change) -> str:
    depth = change.now[1][-1] or 0
    bound = change.constant[1] and not change.recorded
    return _GATHERED if bound and any(axis < depth for axis in change.varying()) else ""
