"""Reductions over axes."""

from __future__ import annotations

from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.layers.reduction.definition import AXES_OF_REDUCE, MODES, REDUCTIONS, reduced_axes
from mlferry.onnx_graph.emitter import Emitter


def _node(kind: str) -> str:
    return kind[0].upper() + kind[1:]


@op(*REDUCTIONS)
def reduce_nd(emitter: Emitter, params: Params, x: str) -> str:
    axes = reduced_axes(params, emitter.rank(x))
    y = emitter.node(_node(params.kind), x, emitter.integers(axes), keepdims=int(params.keepDims))
    remaining = tuple(n for axis, n in enumerate(emitter.shape(x)) if axis not in axes)
    return y if params.keepDims else emitter.at_least_1d(y, remaining)


@op("reduce")
def reduce(emitter: Emitter, params: Params, x: str) -> str:
    """Reduce the last axes; they stay with extent 1."""
    axes = AXES_OF_REDUCE[params.axis]
    if params.mode == "ARGMAX":
        return emitter.from_whole(emitter.node("ArgMax", x, axis=emitter.rank(x) + axes[0]))
    if params.mode == "LOGSUM":
        logs = emitter.node("Log", emitter.affine(x, 1, params.epsilon))
        return emitter.node("ReduceSum", logs, emitter.integers(axes))
    return emitter.node(_node(MODES[params.mode]), x, emitter.integers(axes))
