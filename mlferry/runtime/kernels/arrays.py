"""Layers that join, split, repeat, slice or make arrays."""

from __future__ import annotations

import numpy as np

from mlferry.runtime.kernels.registry import Array, kernel
from mlferry.spec.params import Params


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
    return np.tile(x, p.reps if reps is None else reps.astype(int).ravel())


@kernel("loadConstantND")
def load_constant_nd(p: Params) -> Array:
    return p.weight("data", p.shape)


@kernel("splitND")
def split_nd(p: Params, x: Array) -> tuple[Array, ...]:
    """Into parts of `splitSizes`, or into `numSplits` equal ones."""
    if p.splitSizes:
        return tuple(np.split(x, np.cumsum(p.splitSizes)[:-1], axis=p.axis))
    return tuple(np.split(x, p.numSplits, axis=p.axis))
