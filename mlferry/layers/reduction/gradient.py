"""Gradients of reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mlferry.layers.gradients import BOTH, SHAPES, Array, LayerRun, gradient
from mlferry.layers.params import Params
from mlferry.layers.reduction.definition import AXES_OF_REDUCE, MODES, REDUCTIONS, reduced_axes
from mlferry.numerics.gradients import first_of

Axes = tuple[int, ...]

# The gradient of the input, from that of the result, the input and the result, with the axes.
_GRADIENTS: dict[str, Callable[[Array, Array, Array, Axes], Array]] = {
    "reduceL1": lambda dy, x, y, axes: dy * np.sign(x),
    "reduceL2": lambda dy, x, y, axes: x * np.divide(dy, y, out=np.zeros_like(dy), where=y != 0),
    "reduceMax": lambda dy, x, y, axes: dy * first_of(x, y, axes),
    "reduceMin": lambda dy, x, y, axes: dy * first_of(x, y, axes),
    "reduceProd": lambda dy, x, y, axes: dy * _other_factors(x, axes),
    "reduceLogSum": lambda dy, x, y, axes: dy / x.sum(axis=axes, keepdims=True),
    "reduceSumSquare": lambda dy, x, y, axes: 2 * dy * x,
    "reduceLogSumExp": lambda dy, x, y, axes: dy * np.exp(x - y),
}


def _other_factors(x: Array, axes: Axes) -> Array:
    """The product of all other values, for each value, even if one is zero."""
    axes_last = np.moveaxis(x, axes, range(-len(axes), 0))
    flat = axes_last.reshape(*axes_last.shape[: -len(axes)], -1)
    ones = np.ones_like(flat[..., :1])
    before = np.concatenate([ones, np.cumprod(flat[..., :-1], axis=-1)], axis=-1)
    back = flat[..., ::-1]
    after = np.concatenate([ones, np.cumprod(back[..., :-1], axis=-1)], axis=-1)[..., ::-1]
    return np.moveaxis((before * after).reshape(axes_last.shape), range(-len(axes), 0), axes)


def _through(name: str, run: LayerRun, dy: Array, axes: Axes) -> Array:
    shape = run.input_shapes[0]
    reduced = {axis % len(shape) for axis in axes}
    wide = tuple(1 if axis in reduced else extent for axis, extent in enumerate(shape))
    dy = dy.reshape(wide)
    if name == "reduceMean":
        dy = dy / dy.dtype.type(math.prod(shape[axis] for axis in axes))
    if name in ("reduceMean", "reduceSum"):
        return np.broadcast_to(dy, shape)
    gradient = _GRADIENTS[name](dy, run.inputs[0], run.outputs[0].reshape(wide), axes)
    return np.broadcast_to(gradient, shape)


def _reads(params: Params) -> str:
    name = MODES.get(params.mode, "") if params.kind == "reduce" else params.kind
    return SHAPES if name in ("reduceMean", "reduceSum") else BOTH


@gradient(*REDUCTIONS, keeps=_reads)
def reduce_nd(run: LayerRun, dy: Array) -> Array:
    return _through(run.params.kind, run, dy, reduced_axes(run.params, len(run.input_shapes[0])))


@gradient("reduce", keeps=_reads)
def reduce(run: LayerRun, dy: Array) -> Array | None:
    """An ARGMAX has none."""
    params, axes = run.params, AXES_OF_REDUCE[run.params.axis]
    if params.mode == "ARGMAX":
        return None
    if params.mode == "LOGSUM":
        return dy / (run.inputs[0] + params.epsilon)
    return _through(MODES[params.mode], run, dy, axes)
