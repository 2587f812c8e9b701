"""Activation functions: values keep their shape and type."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.programs.definitions import (
    STRING,
    Operands,
    apart,
    const,
    need,
    one_of,
    op_kind,
    option,
)
from mlferry.programs.types import TensorType

GELU_MODES = ("EXACT", "SIGMOID_APPROXIMATION", "TANH_APPROXIMATION")


@apart(7, "elu", "leaky_relu", "thresholded_relu")
@apart(7, "clamped_relu", "linear_activation", "scaled_tanh", "sigmoid_hard")
@op_kind("relu", "relu6", "sigmoid", "silu", "softplus", "softsign", x=need("T"))
@op_kind("elu", "leaky_relu", "thresholded_relu", x=need("T"), alpha=const("T"))
@op_kind(
    "clamped_relu",
    "linear_activation",
    "scaled_tanh",
    "sigmoid_hard",
    x=need("T"),
    alpha=const("T"),
    beta=const("T"),
)
def same(operands: Operands) -> TensorType:
    """The output has the type of the input."""
    return operands.x.tensor


@op_kind("gelu", x=need("T"), mode=option(STRING, "EXACT"))
def gelu(operands: Operands) -> TensorType:
    one_of(operands, "mode", GELU_MODES)
    return operands.x.tensor


@op_kind("softmax", x=need("T"), axis=option(frozenset({"int32"}), -1))
def softmax(operands: Operands) -> TensorType:
    rank, axis = operands.x.rank, operands.axis.known
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} does not exist in {operands.x.type}")
    return operands.x.tensor


@apart(7, "softplus_parametric", "prelu")
@op_kind("prelu", x=need("T"), alpha=const("T"))
@op_kind("softplus_parametric", x=need("T"), alpha=const("T"), beta=const("T"))
def per_channel(operands: Operands) -> TensorType:
    """alpha and beta have a value for each channel (axis 1)."""
    shape = operands.x.shape
    if len(shape) < 3:
        raise SpecError(f"x is {operands.x.type}; it needs at least 3 axes")
    for name in ("alpha", "beta"):
        operand = getattr(operands, name, None)
        if operand is not None and (operand.rank != 1 or operand.shape[0] not in (shape[1], None)):
            raise SpecError(f"{name} is {operand.type}; it needs one value for each channel of x")
    return operands.x.tensor
