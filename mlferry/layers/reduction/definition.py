"""Reductions over axes."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import layer_kind
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, axis_of, need_rank

AXES_OF_REDUCE = {"CHW": (-3, -2, -1), "HW": (-2, -1), "C": (-3,), "H": (-2,), "W": (-1,)}
REDUCTIONS = (
    *("reduceL1", "reduceL2", "reduceMax", "reduceMin", "reduceSum", "reduceProd", "reduceMean"),
    *("reduceLogSum", "reduceSumSquare", "reduceLogSumExp"),
)

MODES = {  # of `reduce`, but for LOGSUM and ARGMAX: the kind that computes the same
    "SUM": "reduceSum",
    "AVG": "reduceMean",
    "PROD": "reduceProd",
    "SUMSQUARE": "reduceSumSquare",
    "L1": "reduceL1",
    "L2": "reduceL2",
    "MAX": "reduceMax",
    "MIN": "reduceMin",
}


@layer_kind("reduce", inputs=1, defaults={"epsilon": 1e-06})
def reduce(params: Params, shape: Shape) -> list[Shape]:
    reduced = AXES_OF_REDUCE[params.axis]
    need_rank(shape, -reduced[0])
    if params.mode == "ARGMAX" and len(reduced) > 1:
        raise SpecError(f"ARGMAX is over C, H or W, not over {params.axis}")
    axes = {axis + len(shape) for axis in reduced}
    return [tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))]


def reduced_axes(params: Params, rank: int) -> tuple[int, ...]:
    """The axes that a `reduce...` layer of version 4 reduces: all if none are given."""
    if params.reduceAll or not params.axes:
        return tuple(range(rank))
    return tuple(sorted({axis_of(axis, rank) for axis in params.axes}))


@layer_kind(*REDUCTIONS, inputs=1)
def reduce_nd(params: Params, shape: Shape) -> list[Shape]:
    """A result without axes comes as shape (1,): Core ML has no scalars."""
    axes = reduced_axes(params, len(shape))
    if params.keepDims:
        return [tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))]
    remaining = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    return [remaining or (1,)]
