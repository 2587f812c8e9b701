"""Reductions over axes."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Shape, axis_of
from mlferry.programs.definitions import (
    BOOL,
    INT32,
    NUMBERS,
    STRING,
    Operands,
    need,
    newer,
    op_kind,
    option,
)
from mlferry.programs.reshaping.definition import axes_of, vector
from mlferry.programs.types import TensorType

_INDICES = ("int32", "uint16")


@op_kind(
    *("reduce_l1_norm", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp"),
    *("reduce_max", "reduce_mean", "reduce_min"),
    *("reduce_prod", "reduce_sum", "reduce_sum_square"),
    variables={"T": NUMBERS},
    x=need("T"),
    axes=option(INT32),
    keep_dims=option(BOOL, default=False),
)
def reduce(operands: Operands) -> TensorType:
    """Reduces over all axes if none are given."""
    x = operands.x
    axes = tuple(range(x.rank))
    if operands.axes is not None:
        axes = axes_of(vector(operands.axes.known), x.rank)
    return TensorType(x.dtype, reduced(x.shape, axes, keep=operands.keep_dims.known))


def reduced(shape: Shape, axes: tuple[int, ...], *, keep: bool) -> Shape:
    """A shape without some axes, or with 1 in their place."""
    if keep:
        return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    return tuple(extent for axis, extent in enumerate(shape) if axis not in axes)


@newer(7, "reduce_argmax", "reduce_argmin", output_dtype=option(STRING, "int32"))
@op_kind(
    "reduce_argmax",
    "reduce_argmin",
    variables={"T": NUMBERS},
    x=need("T"),
    axis=option(INT32, -1),
    keep_dims=option(BOOL, default=False),
)
def arg_extreme(operands: Operands) -> TensorType:
    x = operands.x
    axis = axis_of(operands.axis.known, x.rank)
    dtype = getattr(operands, "output_dtype", None)
    name = "int32" if dtype is None else dtype.known
    if name not in _INDICES:
        raise SpecError(f"output_dtype is {name!r}; possible are {', '.join(_INDICES)}")
    return TensorType(name, reduced(x.shape, (axis,), keep=operands.keep_dims.known))
