"""Products with matrices, and attention."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.einsums import output_shape
from mlferry.numerics.shapes import broadcast
from mlferry.programs.definitions import (
    BOOL,
    FLOATS,
    NUMBERS,
    STRING,
    Operands,
    const,
    maybe,
    need,
    newer,
    op_kind,
    option,
    several,
)
from mlferry.programs.types import TensorType, compatible


@newer(7, "linear", variables={"T": NUMBERS, "U": NUMBERS}, weight=const("U"), bias=option("U"))
@op_kind("linear", variables={"T": NUMBERS}, x=need("T"), weight=const("T"), bias=option("T"))
def linear(operands: Operands) -> TensorType:
    """x times the transposed weight [outputs, inputs], along the last axis."""
    x, weight = operands.x, operands.weight
    if weight.rank != 2 or (weight.shape[1] not in (x.shape[-1], None) and x.shape[-1] is not None):
        raise SpecError(f"weight is {weight.type}; {x.type} needs [outputs, {x.shape[-1]}]")
    if operands.bias is not None and operands.bias.shape not in ((weight.shape[0],), (None,)):
        raise SpecError(f"bias is {operands.bias.type}; it needs {weight.shape[0]} values")
    return TensorType(x.dtype, (*x.shape[:-1], weight.shape[0]))


@newer(7, "matmul", variables={"T": NUMBERS, "U": NUMBERS}, y=need("U"))
@op_kind(
    "matmul",
    variables={"T": NUMBERS},
    x=need("T"),
    y=need("T"),
    transpose_x=option(BOOL, default=False),
    transpose_y=option(BOOL, default=False),
)
def matmul(operands: Operands) -> TensorType:
    one, two = operands.x.shape, operands.y.shape
    flip = operands.transpose_x.known, operands.transpose_y.known
    if not one or not two:
        raise SpecError(f"{operands.x.type} and {operands.y.type}: both need an axis")
    left = (1, *one) if len(one) == 1 else one
    right = (*two, 1) if len(two) == 1 else two
    if flip[0] and len(one) > 1:
        left = (*left[:-2], left[-1], left[-2])
    if flip[1] and len(two) > 1:
        right = (*right[:-2], right[-1], right[-2])
    if None not in (left[-1], right[-2]) and left[-1] != right[-2]:
        raise SpecError(f"{operands.x.type} and {operands.y.type} do not multiply")
    shape = (*broadcast(left[:-2] or (1,), right[:-2] or (1,)), left[-2], right[-1])
    if len(one) <= 2 and len(two) <= 2:
        shape = shape[1:]
    if len(one) == 1:
        shape = (*shape[:-2], shape[-1])
    if len(two) == 1:
        shape = shape[:-1]
    return TensorType(_joint(operands.x.dtype, operands.y.dtype), shape)


def _joint(one: str, two: str) -> str:
    """Floats take precedence over integers, and narrower floats over wider ones."""
    return next(dtype for dtype in ("fp16", "fp32", "int32") if dtype in (one, two))


@op_kind("einsum", values=several(FLOATS), equation=const(STRING))
def einsum(operands: Operands) -> TensorType:
    shapes = [value.shape for value in operands.values]
    shape = output_shape(operands.equation.known, shapes)
    return TensorType(operands.values[0].dtype, shape)


@op_kind(
    "scaled_dot_product_attention",
    since=8,
    query=need("T"),
    key=need("T"),
    value=need("T"),
    attn_mask=maybe(FLOATS | BOOL),
)
def attention(operands: Operands) -> TensorType:
    """softmax(query key^T / sqrt(E) + mask) value, over the last two axes."""
    query, key, value = operands.query, operands.key, operands.value
    if min(query.rank, key.rank, value.rank) < 3 or not query.rank == key.rank == value.rank:
        raise SpecError(f"{query.type}, {key.type} and {value.type} need the same 3 or more axes")
    if None not in (query.shape[-1], key.shape[-1]) and query.shape[-1] != key.shape[-1]:
        raise SpecError(f"{query.type} and {key.type} differ in their last axis")
    if not compatible(key.shape[-2:-1], value.shape[-2:-1]):
        raise SpecError(f"key is {key.type} and value is {value.type}: their rows differ")
    return TensorType(query.dtype, (*query.shape[:-1], value.shape[-1]))
