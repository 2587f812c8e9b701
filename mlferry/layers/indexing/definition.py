"""Gather, scatter, sorting, and other layers that use indices."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import Change, RankUnknownError, layer_kind, layer_rule, size_check
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, axis_of, broadcast, need_rank, replaced, show
from mlferry.spec.problems import Problems, warning
from mlferry.spec.proto import neural_network_pb2 as nn


def agree(left: Shape, right: Shape) -> bool:
    """Whether two shapes can be the same."""
    return len(left) == len(right) and all(
        a is None or b is None or a == b for a, b in zip(left, right, strict=True)
    )


@layer_kind("gather", inputs=2)
def gather(params: Params, shape: Shape, indices: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    return [(*shape[:axis], *indices, *shape[axis + 1 :])]


@layer_kind("scatter", inputs=3)
def scatter(params: Params, shape: Shape, indices: Shape, updates: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    expected = (*shape[:axis], *indices, *shape[axis + 1 :])
    if not agree(expected, updates):
        raise SpecError(f"updates of shape {show(updates)}; {show(expected)} is needed")
    return [shape]


def points(shape: Shape, indices: Shape) -> tuple[Shape, Shape]:
    """The shape of the list of points in a multi-index, and of the entry at a point."""
    need_rank(indices, 1, "indices")
    depth = indices[-1]
    if depth is None:
        raise RankUnknownError
    if not 1 <= depth <= len(shape):
        raise SpecError(f"indices of {depth} axes into {show(shape)}")
    return indices[:-1], shape[depth:]


@layer_kind("gatherND", inputs=2)
def gather_nd(params: Params, shape: Shape, indices: Shape) -> list[Shape]:
    outer, inner = points(shape, indices)
    return [(*outer, *inner) or (1,)]


@layer_kind("scatterND", inputs=3)
def scatter_nd(params: Params, shape: Shape, indices: Shape, updates: Shape) -> list[Shape]:
    outer, inner = points(shape, indices)
    if not agree((*outer, *inner) or (1,), updates):
        raise SpecError(f"updates of shape {show(updates)}; {show((*outer, *inner))} is needed")
    return [shape]


def along(params: Params, shape: Shape, indices: Shape) -> None:
    """Check that indices differ from the data along one axis only."""
    axis = axis_of(params.axis, len(shape))
    if not agree(replaced(shape, axis, None), indices):
        raise SpecError(f"indices {show(indices)} for data {show(shape)} along axis {axis}")


@layer_kind("gatherAlongAxis", inputs=2)
def gather_along_axis(params: Params, shape: Shape, indices: Shape) -> list[Shape]:
    along(params, shape, indices)
    return [indices]


@layer_kind("scatterAlongAxis", inputs=3)
def scatter_along_axis(params: Params, shape: Shape, indices: Shape, updates: Shape) -> list[Shape]:
    along(params, shape, indices)
    if not agree(indices, updates):
        raise SpecError(f"indices {show(indices)} and updates {show(updates)} differ")
    return [shape]


@layer_kind("whereNonZero", inputs=1)
def where_non_zero(params: Params, shape: Shape) -> list[Shape]:
    return [(None, len(shape))]


@layer_kind("whereBroadcastable", inputs=3)
def where_broadcastable(params: Params, condition: Shape, left: Shape, right: Shape) -> list[Shape]:
    return [broadcast(condition, left, right)]


@layer_kind("oneHot", inputs=(1, 2), positive_alone=("oneHotVectorSize",))
def one_hot(params: Params, shape: Shape, *size: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape) + 1)
    return [(*shape[:axis], None if size else params.oneHotVectorSize, *shape[axis:])]


@layer_kind("topK", inputs=(1, 2), outputs=2, positive_alone=("K",))
def top_k(params: Params, shape: Shape, *count: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    extent = shape[axis]
    if count:
        return [replaced(shape, axis, None)] * 2
    if not params.K or (extent is not None and extent < params.K):
        raise SpecError(f"K = {params.K} of axis {axis} of {show(shape)}")
    return [replaced(shape, axis, params.K)] * 2


@layer_kind("argMax", "argMin", inputs=1)
def arg_extreme(params: Params, shape: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    if params.removeDim:
        return [(*shape[:axis], *shape[axis + 1 :]) or (1,)]
    return [replaced(shape, axis, 1)]


@layer_kind("argSort", inputs=1)
def arg_sort(params: Params, shape: Shape) -> list[Shape]:
    axis_of(params.axis, len(shape))
    return [shape]


@layer_kind("cumSum", inputs=(1, 2))
def cum_sum(params: Params, shape: Shape, *axis: Shape) -> list[Shape]:
    if not axis:
        axis_of(params.axis, len(shape))
    return [shape]


@layer_kind("reverse", inputs=1)
def reverse(params: Params, shape: Shape) -> list[Shape]:
    if len(params.reverseDim) != len(shape):
        raise SpecError(f"{len(params.reverseDim)} flags for the axes of {show(shape)}")
    return [shape]


@layer_kind("reverseSeq", inputs=2)
def reverse_seq(params: Params, shape: Shape, lengths: Shape) -> list[Shape]:
    batch, sequence = (
        axis_of(axis, len(shape)) for axis in (params.batchAxis, params.sequenceAxis)
    )
    if batch == sequence:
        raise SpecError(f"batch and sequence are the same axis, {batch}")
    if not agree((shape[batch],), lengths):
        raise SpecError(f"lengths {show(lengths)} for axis {batch} of {show(shape)}")
    return [shape]


@layer_kind("matrixBandPart", "lowerTriangular", "upperTriangular", inputs=1)
def of_matrices(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 2)
    return [shape]


_GATHERED = "its constant indices are those of the described size"


@size_check("gather", "scatter", "gatherAlongAxis", "scatterAlongAxis")
def indexed_along(params: Params, change: Change) -> str:
    axis = axis_of(params.axis, len(change.now[0]))
    bound = change.constant[1] and change.varies(axis) and not change.recorded
    return _GATHERED if bound else ""


@size_check("gatherND", "scatterND")
def indexed_at_points(params: Params, change: Change) -> str:
    depth = change.now[1][-1] or 0
    bound = change.constant[1] and not change.recorded
    return _GATHERED if bound and any(axis < depth for axis in change.varying()) else ""


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("argSort")
def check_axis_counts_from_the_front(
    layer: nn.NeuralNetworkLayer, params: nn.ArgSortLayerParams
) -> Problems:
    """Here, negative axes are not supported."""
    if params.axis < 0:
        yield warning(f"axis is {params.axis}; here it must not be negative")
