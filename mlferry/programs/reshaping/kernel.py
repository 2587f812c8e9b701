"""Other shapes and orders of the same values."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import axes_of, resolved, vector

Ints = tuple[int, ...]
T = TypeVar("T")


@kernel("identity", moves=True)
def identity(call: Call, x: T) -> T:
    return x


@kernel("shape", moves=True)
def shape(call: Call, x: Array) -> Array:
    return np.array(x.shape, np.int32)


@kernel("transpose", moves=True)
def transpose(call: Call, x: Array, perm: Ints) -> Array:
    return x.transpose(vector(perm))


@kernel("reshape", moves=True)
def reshape(call: Call, x: Array, shape: Array) -> Array:
    goal = tuple(int(n) for n in np.ravel(shape))
    return x.reshape([n if n is not None else -1 for n in resolved(goal, x.shape)])


@kernel("reshape_like", moves=True)
def reshape_like(
    call: Call,
    x: Array,
    ref_tensors: list[Array],
    begins: list[Any],
    ends: list[Any],
    end_masks: list[Any],
) -> Array:
    extents: list[int] = []
    for like, begin, end, to_the_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        extents += like.shape[int(begin) : None if to_the_end else int(end)]
    return x.reshape(extents)


@kernel("expand_dims", moves=True)
def expand_dims(call: Call, x: Array, axes: Ints) -> Array:
    return np.expand_dims(x, axes_of(vector(axes), x.ndim + len(vector(axes))))


@kernel("squeeze", moves=True)
def squeeze(call: Call, x: Array, axes: Ints | None) -> Array:
    return np.squeeze(x, None if axes is None else axes_of(vector(axes), x.ndim))


@kernel("flatten2d", moves=True)
def flatten2d(call: Call, x: Array, axis: int) -> Array:
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@kernel("reverse", moves=True)
def reverse(call: Call, x: Array, axes: Ints | None) -> Array:
    return np.flip(x, None if axes is None else axes_of(vector(axes), x.ndim))


@kernel("reverse_sequence", moves=True)
def reverse_sequence(call: Call, x: Array, lengths: Array, seq_axis: int, batch_axis: int) -> Array:
    """Reverses the first entries of every sample, as many as `lengths` says."""
    y = x.copy()
    samples = np.moveaxis(y, (batch_axis, seq_axis), (0, 1))
    source = np.moveaxis(x, (batch_axis, seq_axis), (0, 1))
    for index, length in enumerate(np.ravel(lengths)):
        samples[index, :length] = source[index, :length][::-1]
    return y


@kernel("depth_to_space", moves=True)
def depth_to_space(call: Call, x: Array, block_size: int) -> Array:
    """The channels of a block come before those of a pixel: [block, block, C]."""
    n, c, h, w = x.shape
    y = x.reshape(n, block_size, block_size, c // block_size**2, h, w)
    return y.transpose(0, 3, 4, 1, 5, 2).reshape(n, -1, h * block_size, w * block_size)


@kernel("pixel_shuffle", moves=True)
def pixel_shuffle(call: Call, x: Array, upscale_factor: int) -> Array:
    """The channels of a pixel come before those of a block: [C, block, block]."""
    n, c, h, w = x.shape
    y = x.reshape(n, c // upscale_factor**2, upscale_factor, upscale_factor, h, w)
    return y.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * upscale_factor, w * upscale_factor)


@kernel("space_to_depth", moves=True)
def space_to_depth(call: Call, x: Array, block_size: int) -> Array:
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block_size, block_size, w // block_size, block_size)
    return y.transpose(0, 3, 5, 1, 2, 4).reshape(n, -1, h // block_size, w // block_size)


@kernel("pixel_unshuffle", moves=True)
def pixel_unshuffle(call: Call, x: Array, downscale_factor: int) -> Array:
    n, c, h, w = x.shape
    block = downscale_factor
    y = x.reshape(n, c, h // block, block, w // block, block)
    return y.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, h // block, w // block)


@kernel("space_to_batch", moves=True)
def space_to_batch(call: Call, x: Array, block_shape: Ints, paddings: Array) -> Array:
    (down, across), c = vector(block_shape), x.shape[1]
    x = np.pad(x, [(0, 0), (0, 0), *np.asarray(paddings).tolist()])
    n, _, h, w = x.shape
    y = x.reshape(n, c, h // down, down, w // across, across)
    return y.transpose(3, 5, 0, 1, 2, 4).reshape(-1, c, h // down, w // across)


@kernel("batch_to_space", moves=True)
def batch_to_space(call: Call, x: Array, block_shape: Ints, crops: Array) -> Array:
    (down, across), (n, c, h, w) = vector(block_shape), x.shape
    y = x.reshape(down, across, n // (down * across), c, h, w)
    y = y.transpose(2, 3, 4, 0, 5, 1).reshape(-1, c, h * down, w * across)
    (top, bottom), (left, right) = np.asarray(crops).tolist()
    return y[:, :, top : h * down - bottom, left : w * across - right]
