"""Reductions over axes."""

from __future__ import annotations

from mlferry.layers.elementwise.onnx import affine
from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.layers.reduction.definition import AXES_OF_REDUCE, REDUCTIONS, reduced_axes
from mlferry.onnx_graph.emitter import Emitter

_CLASSIC = {
    "SUM": "ReduceSum", "AVG": "ReduceMean", "PROD": "ReduceProd", "SUMSQUARE": "ReduceSumSquare",
    "L1": "ReduceL1", "L2": "ReduceL2", "MAX": "ReduceMax", "MIN": "ReduceMin",
}  # fmt: skip


@op(*REDUCTIONS)
def reduce_nd(e: Emitter, p: Params, x: str) -> str:
    axes = reduced_axes(p, e.rank(x))
    name = p.kind[0].upper() + p.kind[1:]
    y = e.node(name, x, e.integers(axes), keepdims=int(p.keepDims))
    kept = tuple(n for axis, n in enumerate(e.shape(x)) if axis not in axes)
    return y if p.keepDims else e.at_least_1d(y, kept)


@op("reduce")
def reduce(e: Emitter, p: Params, x: str) -> str:
    """Of the last axes; they stay with extent 1."""
    axes = AXES_OF_REDUCE[p.axis]
    if p.mode == "ARGMAX":
        return e.from_whole(e.node("ArgMax", x, axis=e.rank(x) + axes[0]))
    if p.mode == "LOGSUM":
        logs = e.node("Log", affine(e, x, 1, p.epsilon))
        return e.node("ReduceSum", logs, e.integers(axes))
    return e.node(_CLASSIC[p.mode], x, e.integers(axes))
