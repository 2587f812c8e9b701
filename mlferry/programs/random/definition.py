"""Random values, of a shape or of a distribution."""

from __future__ import annotations

from mlferry.programs.arrays.definition import sizes
from mlferry.programs.definitions import (
    INT32,
    STRING,
    Operand,
    Operands,
    need,
    one_of,
    op_kind,
    option,
)
from mlferry.programs.types import TensorType


@op_kind("random_bernoulli", shape=need(INT32), prob=option("T", 0.5), seed=option(INT32, -1))
def bernoulli(operands: Operands) -> TensorType:
    return _of(operands.shape, operands.prob)


@op_kind(
    "random_normal",
    shape=need(INT32),
    mean=option("T", 0.0),
    stddev=option("T", 1.0),
    seed=option(INT32, -1),
)
def normal(operands: Operands) -> TensorType:
    return _of(operands.shape, operands.mean)


@op_kind(
    "random_uniform",
    shape=need(INT32),
    low=option("T", 0.0),
    high=option("T", 1.0),
    seed=option(INT32, -1),
)
def uniform(operands: Operands) -> TensorType:
    return _of(operands.shape, operands.low)


def _of(shape: Operand, like: Operand) -> TensorType:
    if shape.value is None:
        rank = shape.shape[0]
        return TensorType(like.dtype, None if rank is None else (None,) * rank)
    return TensorType(like.dtype, sizes("shape", shape))


@op_kind(
    "random_categorical",
    x=need("T"),
    mode=option(STRING, "logits"),
    size=option(INT32, 1),
    seed=option(INT32, -1),
)
def categorical(operands: Operands) -> TensorType:
    """Indices along the last axis, drawn `size` times."""
    one_of(operands, "mode", ("logits", "probs"))
    return TensorType(operands.x.dtype, (*operands.x.shape[:-1], operands.size.known))
