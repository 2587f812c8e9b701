"""Gathering, scattering, sorting and selecting."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Extent, Shape, axis_of, replaced, show
from mlferry.programs.definitions import (
    BOOL,
    INT32,
    NUMBERS,
    SIGNED,
    SMALL,
    STRING,
    Operand,
    Operands,
    const,
    need,
    newer,
    one_of,
    op_kind,
    option,
)
from mlferry.programs.types import TensorType, compatible

MODES = ("add", "div", "max", "min", "mul", "sub", "update")
_FIVE = {"T": NUMBERS}
_SIX = {"T": NUMBERS, "I": INT32 | {"uint16", "int16"}}
_SEVEN = {"T": NUMBERS | SMALL, "I": INT32 | SMALL}
_FLAG = option(BOOL, default=False)
_SCATTERED = {
    "data": need("T"),
    "indices": need(INT32),
    "updates": need("T"),
    "mode": option(STRING, "add"),
}
_SUPPRESSION = {
    "boxes": need("T"),
    "scores": need("T"),
    "iou_threshold": const("T"),
    "max_boxes": const(INT32),
    "per_class_suppression": _FLAG,
}


@newer(7, "gather", variables=_SEVEN, validate_indices=_FLAG)
@newer(6, "gather", variables=_SIX, indices=need("I"), batch_dims=option(INT32, 0))
@op_kind("gather", variables=_FIVE, x=need("T"), indices=need(INT32), axis=option(INT32, 0))
def gather(operands: Operands) -> TensorType:
    """Entries of one axis; the first `batch_dims` axes of both correspond."""
    x, indices = operands.x, operands.indices
    axis = axis_of(operands.axis.known, x.rank)
    batch = _batch_dims(operands)
    if not 0 <= batch <= min(axis, indices.rank):
        raise SpecError(f"batch_dims is {batch}; axis is {axis}, indices are {indices.type}")
    shape = (*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape)


def _batch_dims(operands: Operands) -> int:
    operand = getattr(operands, "batch_dims", None)
    return 0 if operand is None else operand.known


@newer(7, "gather_nd", variables=_SEVEN, validate_indices=_FLAG)
@newer(6, "gather_nd", variables=_SIX, indices=need("I"), batch_dims=option(INT32, 0))
@op_kind("gather_nd", variables=_FIVE, x=need("T"), indices=need(INT32))
def gather_nd(operands: Operands) -> TensorType:
    """The last axis of the indices names a place in as many axes."""
    x, indices, batch = operands.x, operands.indices, _batch_dims(operands)
    depth = indices.shape[-1]
    if depth is None:
        return TensorType(x.dtype, None)
    if batch + depth > x.rank:
        raise SpecError(f"indices {indices.type} name {depth} axes of {x.type}")
    return TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch + depth :]))


@newer(7, "gather_along_axis", variables=_SEVEN, validate_indices=_FLAG)
@newer(6, "gather_along_axis", variables=_SIX, indices=need("I"))
@op_kind(
    "gather_along_axis", variables=_FIVE, x=need("T"), indices=need(INT32), axis=option(INT32, 0)
)
def gather_along_axis(operands: Operands) -> TensorType:
    x, indices = operands.x, operands.indices
    axis = axis_of(operands.axis.known, x.rank)
    fits = indices.rank == x.rank and all(
        i == axis or a == b or None in (a, b)
        for i, (a, b) in enumerate(zip(x.shape, indices.shape, strict=True))
    )
    if not fits:
        raise SpecError(f"indices {indices.type} do not go along axis {axis} of {x.type}")
    return TensorType(x.dtype, indices.shape)


@newer(7, "scatter", validate_indices=_FLAG)
@op_kind("scatter", variables=_FIVE, shared=_SCATTERED, axis=option(INT32, 0))
def scatter(operands: Operands) -> TensorType:
    """The data, with the updates at the indices of an axis."""
    data, indices = operands.data, operands.indices
    axis = axis_of(operands.axis.known, data.rank)
    _updated(operands, (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))
    return data.tensor


def _updated(operands: Operands, shape: Shape) -> None:
    """Raise an error if updates have another shape, or an unknown mode."""
    one_of(operands, "mode", MODES)
    if not compatible(operands.updates.shape, shape):
        raise SpecError(f"updates is {operands.updates.type}; the shape {show(shape)} is needed")


@newer(7, "scatter_along_axis", validate_indices=_FLAG)
@op_kind("scatter_along_axis", variables=_FIVE, shared=_SCATTERED, axis=option(INT32, 0))
def scatter_along_axis(operands: Operands) -> TensorType:
    data, indices = operands.data, operands.indices
    axis = axis_of(operands.axis.known, data.rank)
    if indices.rank != data.rank or not compatible(
        replaced(indices.shape, axis, None), replaced(data.shape, axis, None)
    ):
        raise SpecError(f"indices {indices.type} do not go along axis {axis} of {data.type}")
    _updated(operands, indices.shape)
    return data.tensor


@newer(7, "scatter_nd", validate_indices=_FLAG)
@op_kind("scatter_nd", variables=_FIVE, shared=_SCATTERED)
def scatter_nd(operands: Operands) -> TensorType:
    """The last axis of the indices names a place in as many axes."""
    data, indices = operands.data, operands.indices
    depth = indices.shape[-1] if indices.shape else None
    if depth is not None and depth > data.rank:
        raise SpecError(f"indices {indices.type} name {depth} axes of {data.type}")
    if depth is not None:
        _updated(operands, (*indices.shape[:-1], *data.shape[depth:]))
    return data.tensor


@op_kind("argsort", variables={"T": NUMBERS}, x=need("T"), axis=option(INT32, -1), ascending=_FLAG)
def argsort(operands: Operands) -> TensorType:
    axis_of(operands.axis.known, operands.x.rank)
    return TensorType("int32", operands.x.shape)


@newer(
    7,
    "topk",
    variables={"T": NUMBERS | SMALL, "K": SIGNED},
    k=option("K", 1),
    output_indices_dtype=option(STRING, "int32"),
)
@newer(6, "topk", sort=option(BOOL, default=True), return_indices=option(BOOL, default=True))
@op_kind(
    "topk",
    variables={"T": NUMBERS},
    x=need("T"),
    k=option(INT32, 1),
    axis=option(INT32, -1),
    ascending=_FLAG,
)
def topk(operands: Operands) -> tuple[TensorType, ...]:
    """The largest or smallest values and their places; all of them if k is -1."""
    x, k = operands.x, operands.k.known
    axis = axis_of(operands.axis.known, x.rank)
    extent: Extent = x.shape[axis] if k == -1 else k
    if k != -1 and (k < 1 or (x.shape[axis] is not None and k > (x.shape[axis] or 0))):
        raise SpecError(f"k is {k}; axis {axis} of {x.type} has not as many")
    shape = replaced(x.shape, axis, extent)
    with_indices, dtype = (
        getattr(operands, n, None) for n in ("return_indices", "output_indices_dtype")
    )
    values = TensorType(x.dtype, shape)
    if with_indices is not None and not with_indices.known:
        return (values,)
    return values, TensorType("int32" if dtype is None else dtype.known, shape)


@op_kind(
    "one_hot",
    variables={"T": NUMBERS | BOOL},
    indices=need(INT32),
    one_hot_vector_size=need(INT32),
    axis=option(INT32, -1),
    on_value=option("T", 1),
    off_value=option("T", 0),
)
def one_hot(operands: Operands) -> TensorType:
    indices = operands.indices
    axis = axis_of(operands.axis.known, indices.rank + 1)
    size = operands.one_hot_vector_size
    if size.value is not None and size.known < 0:
        raise SpecError(f"one_hot_vector_size is {size.known}")
    shape = list(indices.shape)
    shape.insert(axis, None if size.value is None else size.known)
    return TensorType(operands.on_value.dtype, tuple(shape))


@op_kind("non_zero", variables={"T": NUMBERS | BOOL}, x=need("T"))
def non_zero(operands: Operands) -> TensorType:
    """The places of nonzero values, one in each row."""
    return TensorType("int32", (None, operands.x.rank))


@op_kind(
    "cumsum",
    variables={"T": NUMBERS},
    x=need("T"),
    axis=option(INT32, 0),
    exclusive=_FLAG,
    reverse=_FLAG,
)
def cumsum(operands: Operands) -> TensorType:
    axis_of(operands.axis.known, operands.x.rank)
    return operands.x.tensor


@op_kind("non_maximum_suppression", shared=_SUPPRESSION, score_threshold=const("T"))
def non_maximum_suppression(operands: Operands) -> tuple[TensorType, ...]:
    """Boxes [n, B, 4] and scores [n, B, K]: those that remain, their indices, and their number."""
    boxes, scores, n, most = _boxes(operands, "boxes (n, B, 4) and scores (n, B, K)", 2)
    return (
        TensorType(boxes.dtype, (n, most, 4)),
        TensorType(scores.dtype, (n, most, scores.shape[2])),
        TensorType("int32", (n, most)),
        TensorType("int32", (n,)),
    )


def _boxes(operands: Operands, layout: str, axis: int) -> tuple[Operand, Operand, Extent, int]:
    """Boxes with their corners along an axis, scores, and how many images and boxes remain."""
    boxes, scores, most = operands.boxes, operands.scores, operands.max_boxes.known
    if boxes.rank != 3 or scores.rank != 3 or boxes.shape[axis] not in (4, None):
        raise SpecError(f"{layout}: {boxes.type}, {scores.type}")
    if most < 0:
        raise SpecError(f"max_boxes is {most}")
    return boxes, scores, boxes.shape[0], most


@op_kind("non_maximum_suppression", since=7, shared=_SUPPRESSION)
def suppression_of_columns(operands: Operands) -> tuple[TensorType, ...]:
    """Boxes [n, 4, B] and scores [n, K, B]: those that remain, and their indices."""
    boxes, scores, n, most = _boxes(operands, "boxes (n, 4, B) and scores (n, K, B)", 1)
    return (
        TensorType(boxes.dtype, (n, 4, most)),
        TensorType(scores.dtype, (n, scores.shape[1], most)),
        TensorType("int32", (n, most)),
    )
