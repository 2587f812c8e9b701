"""Gradients of layers that join, split or repeat arrays."""

from __future__ import annotations

import itertools

import numpy as np

from mlferry.layers.arrays.kernel import split_nd as split_kernel
from mlferry.layers.gradients import INPUTS, SHAPES, Array, LayerRun, gradient, no_gradient
from mlferry.layers.kernels import integers
from mlferry.numerics.shapes import axis_of

no_gradient("loadConstant", "loadConstantND")


def _apart(run: LayerRun, dy: Array, axis: int) -> tuple[Array, ...]:
    """The parts of a gradient along an axis, one per input."""
    ends = list(itertools.accumulate(shape[axis] for shape in run.input_shapes))
    return tuple(np.split(dy, ends[:-1], axis=axis))


@gradient("concat", keeps=SHAPES)
def concat(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    return _apart(run, dy, -5 if run.params.sequenceConcat else -3)


@gradient("concatND", keeps=SHAPES)
def concat_nd(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    axis = axis_of(run.params.axis, dy.ndim)
    if not run.params.interleave:
        return _apart(run, dy, axis)
    count = len(run.input_shapes)
    before = (slice(None),) * axis
    parts = [(*before, slice(index, None, count)) for index in range(count)]
    return tuple(dy[part] for part in parts)


@gradient("stack", keeps=SHAPES)
def stack(run: LayerRun, dy: Array) -> tuple[Array, ...]:
    return tuple(np.moveaxis(dy, run.params.axis, 0))


@gradient("tile", keeps=INPUTS)
def tile(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    """The sum over repetitions."""
    shape = run.input_shapes[0]
    counts = run.params.reps if len(run.input_shapes) < 2 else integers(run.inputs[1])
    counts = (1,) * (len(shape) - len(counts)) + tuple(counts)
    both = [extent for pair in zip(counts, shape, strict=True) for extent in pair]
    total = dy.reshape(both).sum(axis=tuple(range(0, len(both), 2)))
    return (total, None)[: len(run.input_shapes)]


@gradient("sequenceRepeat", keeps=SHAPES)
def sequence_repeat(run: LayerRun, dy: Array) -> Array:
    count = run.params.nRepetitions
    return dy.reshape(count, *run.input_shapes[0]).sum(axis=0)


@gradient("splitND", keeps=SHAPES)
def split_nd(run: LayerRun, *dys: Array) -> Array:
    """The parts' gradients are joined; values in no part have no gradient."""
    if sum(dy.shape[run.params.axis] for dy in dys) == run.input_shapes[0][run.params.axis]:
        return np.concatenate(dys, axis=run.params.axis)
    return run.moved(split_kernel, *dys)
