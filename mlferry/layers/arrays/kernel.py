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
def concat(p: Params, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis=-5 if p.sequenceConcat else -3)


@kernel("concatND")
def concat_nd(p: Params, *inputs: Array) -> Array:
    """`interleave` takes one entry of each input in turn."""
    if not p.interleave:
        return np.concatenate(inputs, axis=p.axis)
    axis = p.axis % inputs[0].ndim
    shape = list(inputs[0].shape)
    shape[axis] *= len(inputs)
    return np.stack(inputs, axis=axis + 1).reshape(shape)


@kernel("stack")
def stack(p: Params, *inputs: Array) -> Array:
    return np.stack(inputs, axis=p.axis)


@kernel("tile")
def tile(p: Params, x: Array, reps: Array | None = None) -> Array:
    """Fewer repetitions than axes are those of the last axes."""
    counts = p.reps if reps is None else integers(reps)
    if len(counts) > x.ndim:
        raise PredictionError(f"{len(counts)} repetitions for an input of rank {x.ndim}")
    limits.check_blob((x.size, *counts))
    return np.tile(x, counts)


@kernel("loadConstantND")
def load_constant_nd(p: Params) -> Array:
    return p.weight("data", p.shape)


@kernel("loadConstant")
def load_constant(p: Params) -> Array:
    """[C, H, W], in any mapping as [1, 1, C, H, W]."""
    return p.weight("data", p.shape)[None, None]


@kernel("sequenceRepeat")
def sequence_repeat(p: Params, x: Array) -> Array:
    """The whole sequence (axis -5) again and again."""
    return np.concatenate([x] * p.nRepetitions, axis=-5)


@kernel("splitND")
def split_nd(p: Params, x: Array) -> tuple[Array, ...]:
    """Into parts of `splitSizes`, or into `numSplits` of which the first take what is over."""
    if p.splitSizes:
        before = (slice(None),) * axis_of(p.axis, x.ndim)
        ends = itertools.accumulate(p.splitSizes)
        parts = [
            (*before, slice(end - size, end)) for end, size in zip(ends, p.splitSizes, strict=True)
        ]
        return tuple(x[part] for part in parts)
    return tuple(np.array_split(x, p.numSplits, axis=p.axis))
