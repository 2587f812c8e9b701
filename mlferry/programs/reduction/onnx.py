"""Reductions over axes."""

from __future__ import annotations

from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, cast, export, int32
from mlferry.programs.reshaping.definition import vector

_SAME = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_MADE = {
    "reduce_l1_norm": "ReduceL1",
    "reduce_l2_norm": "ReduceL2",
    "reduce_log_sum": "ReduceLogSum",
    "reduce_log_sum_exp": "ReduceLogSumExp",
    "reduce_mean": "ReduceMean",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
    "reduce_sum_square": "ReduceSumSquare",
}
_OF_FLOATS = {"reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_mean"}
_PLACES = {"reduce_argmax": "ArgMax", "reduce_argmin": "ArgMin"}


def _reduced(
    emitter: Emitter, op: str, x: str, axes: tuple[int, ...] | None, keep_dims: bool
) -> str:
    over = [] if axes is None else [emitter.integers(vector(axes))]
    return emitter.node(op, x, *over, keepdims=int(keep_dims))


@export(*_SAME, moves=True)
def largest(
    emitter: Emitter, call: Call, x: str, axes: tuple[int, ...] | None, keep_dims: bool
) -> str:
    return _reduced(emitter, _SAME[call.op], x, axes, keep_dims)


@export(*_MADE)
def reduce(
    emitter: Emitter, call: Call, x: str, axes: tuple[int, ...] | None, keep_dims: bool
) -> str:
    """Integers whose result has a fraction are computed in float64, and truncated at the end."""
    whole = call.op in _OF_FLOATS and call.carrier("x") == "int32"
    source = cast(emitter, x, "float64") if whole else x
    y = _reduced(emitter, _MADE[call.op], source, axes, keep_dims)
    return cast(emitter, y, "int32") if whole else y


@export(*_PLACES)
def place(
    emitter: Emitter, call: Call, x: str, axis: int, keep_dims: bool, output_dtype: str = "int32"
) -> str:
    """Of equal values, the first."""
    return int32(emitter, emitter.node(_PLACES[call.op], x, axis=axis, keepdims=int(keep_dims)))
