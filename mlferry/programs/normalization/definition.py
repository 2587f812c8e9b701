"""Normalization over channels, axes and neighbours."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.programs.definitions import (
    FLOATS,
    INT32,
    Operands,
    apart,
    const,
    need,
    op_kind,
    option,
)
from mlferry.programs.reshaping.definition import axes_of, vector
from mlferry.programs.types import TensorType


@apart(7, "instance_norm")
@apart(7, "batch_norm", epsilon=option(FLOATS, 1e-5))
@op_kind(
    "batch_norm",
    x=need("T"),
    mean=const("T"),
    variance=const("T"),
    gamma=option("T"),
    beta=option("T"),
    epsilon=option("T", 1e-5),
)
@op_kind(
    "instance_norm", x=need("T"), gamma=option("T"), beta=option("T"), epsilon=option("T", 1e-5)
)
def per_channel(operands: Operands) -> TensorType:
    """Statistics, gamma and beta have a value for each channel (axis 1)."""
    x = operands.x
    if not 3 <= x.rank <= 5:
        raise SpecError(f"x is {x.type}; it needs 3 to 5 axes")
    for name in ("mean", "variance", "gamma", "beta"):
        operand = getattr(operands, name, None)
        if operand is not None and (
            operand.rank != 1 or x.shape[1] not in (operand.shape[0], None)
        ):
            raise SpecError(f"{name} is {operand.type}; it needs one value for each channel of x")
    return x.tensor


@apart(7, "layer_norm")
@op_kind(
    "layer_norm",
    x=need("T"),
    axes=option(INT32),
    gamma=option("T"),
    beta=option("T"),
    epsilon=option("T", 1e-5),
)
def layer_norm(operands: Operands) -> TensorType:
    """Normalizes over some axes, by default all; gamma and beta have the shape of these axes."""
    x = operands.x
    axes = tuple(range(x.rank))
    if operands.axes is not None:
        axes = axes_of(vector(operands.axes.known), x.rank)
    shape = tuple(x.shape[axis] for axis in sorted(axes))
    for name in ("gamma", "beta"):
        operand = getattr(operands, name)
        if operand is not None and (
            operand.rank != len(shape)
            or any(a != b and b is not None for a, b in zip(operand.shape, shape, strict=True))
        ):
            raise SpecError(
                f"{name} is {operand.type}; it needs the shape of the axes {list(axes)}"
            )
    return x.tensor


@apart(7, "l2_norm")
@op_kind("l2_norm", x=need("T"), epsilon=option("T", 1e-6))
def l2_norm(operands: Operands) -> TensorType:
    if operands.x.rank < 3:
        raise SpecError(f"x is {operands.x.type}; it needs at least 3 axes")
    return operands.x.tensor


@apart(7, "local_response_norm")
@op_kind(
    "local_response_norm",
    x=need("T"),
    size=const(INT32),
    alpha=option("T", 1e-4),
    beta=option("T", 0.75),
    k=option("T", 1.0),
)
def local_response_norm(operands: Operands) -> TensorType:
    if operands.x.rank < 3 or operands.size.known < 1:
        raise SpecError(f"x is {operands.x.type} and size {operands.size.known}")
    return operands.x.tensor
