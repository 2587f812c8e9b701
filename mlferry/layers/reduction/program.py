"""Reductions over axes."""

from __future__ import annotations

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.layers.reduction.definition import AXES_OF_REDUCE, MODES, REDUCTIONS, reduced_axes
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value

_OPS = {
    "reduceSum": "reduce_sum",
    "reduceMean": "reduce_mean",
    "reduceProd": "reduce_prod",
    "reduceSumSquare": "reduce_sum_square",
    "reduceL1": "reduce_l1_norm",
    "reduceL2": "reduce_l2_norm",
    "reduceMax": "reduce_max",
    "reduceMin": "reduce_min",
    "reduceLogSum": "reduce_log_sum",
    "reduceLogSumExp": "reduce_log_sum_exp",
}
_OF_INTEGERS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")


def at_least_1d(builder: ProgramBuilder, x: Value) -> Value:
    """A scalar as a vector of one: blobs of networks have at least one axis."""
    return builder.reshape(x, [1]) if x.rank == 0 else x


@as_program(*REDUCTIONS)
def reduce_nd(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    op = _OPS[params.kind]
    if op not in _OF_INTEGERS or x.dtype != "int32":
        x = builder.as_float(x)
    axes = list(reduced_axes(params, x.rank))
    return at_least_1d(builder, builder.op(op, x=x, axes=axes, keep_dims=params.keepDims))


@as_program("reduce")
def reduce(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Reduce the last axes; they stay with extent 1."""
    x, axes = builder.as_float(x), list(AXES_OF_REDUCE[params.axis])
    if params.mode == "ARGMAX":
        return builder.op("reduce_argmax", x=x, axis=axes[0], keep_dims=True)
    if params.mode == "LOGSUM":
        logs = builder.op("log", x=x, epsilon=params.epsilon)
        return builder.op("reduce_sum", x=logs, axes=axes, keep_dims=True)
    return builder.op(_OPS[MODES[params.mode]], x=x, axes=axes, keep_dims=True)
