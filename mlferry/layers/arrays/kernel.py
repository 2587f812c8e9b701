"""Layers that join, split, repeat, slice or make arrays."""

from __future__ import annotations

import itertools

import numpy as np

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, integers, kernel
from mlferry.layers.params import Params
from mlferry.numerics.shapes import axis_of


@kernel("concat")
def concat(params: Params, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis=-5 if params.sequenceConcat else -3)


@kernel("concatND")
def concat_nd(params: Params, *inputs: Array) -> Array:
    """`interleave` takes one entry of each input in turn."""
    if not params.interleave:
        return np.concatenate(inputs, axis=params.axis)
    axis = params.axis % inputs[0].ndim
    shape = list(inputs[0].shape)
    shape[axis] *= len(inputs)
    return np.stack(inputs, axis=axis + 1).reshape(shape)


@kernel("stack")
def stack(params: Params, *inputs: Array) -> Array:
    return np.stack(inputs, axis=params.axis)


@kernel("tile")
def tile(params: Params, x: Array, reps: Array | None = None) -> Array:
    """With fewer repetitions than axes, they are those of the last axes."""
    counts = params.reps if reps is None else integers(reps)
    if len(counts) > x.ndim:
        raise PredictionError(f"{len(counts)} repetitions for an input of rank {x.ndim}")
    limits.check_blob((x.size, *counts))
    return np.tile(x, counts)


@kernel("loadConstantND")
def load_constant_nd(params: Params) -> Array:
    return params.weight("data", params.shape)


@kernel("loadConstant")
def load_constant(params: Params) -> Array:
    """[C, H, W], in any mapping as [1, 1, C, H, W]."""
    return params.weight("data", params.shape)[None, None]


@kernel("sequenceRepeat")
def sequence_repeat(params: Params, x: Array) -> Array:
    """Repeat the whole sequence (axis -5)."""
    return np.concatenate([x] * params.nRepetitions, axis=-5)


@kernel("splitND")
def split_nd(params: Params, x: Array) -> tuple[Array, ...]:
    """Into parts of `splitSizes`, or into `numSplits` parts; the first ones take the remainder."""
    if params.splitSizes:
        before = (slice(None),) * axis_of(params.axis, x.ndim)
        ends = itertools.accumulate(params.splitSizes)
        parts = [
            (*before, slice(end - size, end))
            for end, size in zip(ends, params.splitSizes, strict=True)
        ]
        return tuple(x[part] for part in parts)
    return tuple(np.array_split(x, params.numSplits, axis=params.axis))
