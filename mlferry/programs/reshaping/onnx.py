"""Other shapes and orders of the same values."""

from __future__ import annotations

import math

import numpy as np

from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, cast, divided, export, int32, inverse, times, values_of
from mlferry.programs.reshaping.definition import axes_of, vector
from mlferry.programs.types import Array
from mlferry.refusals import refuse

Ints = tuple[int, ...]
_BEFORE = int(np.iinfo(np.int64).min)


@export("identity", moves=True)
def identity(emitter: Emitter, call: Call, x: str) -> str:
    return x


@export("shape")
def shape(emitter: Emitter, call: Call, x: str) -> str:
    return int32(emitter, emitter.shape_vector(x))


@export("transpose", moves=True)
def transpose(emitter: Emitter, call: Call, x: str, perm: Ints) -> str:
    rank = emitter.rank(x)
    return emitter.transpose(x, [axis % rank for axis in vector(perm)])


@export("reshape", moves=True)
def reshape(emitter: Emitter, call: Call, x: str, shape: str) -> str:
    """0 keeps an extent; if the number of axes differs, places count from the end."""
    goal = values_of(emitter, shape)
    if goal is None:
        return emitter.node("Reshape", x, emitter.reshape(emitter.whole(shape), [-1]))
    if 0 not in goal:
        return emitter.reshape(x, goal)
    rank, extents = emitter.rank(x), []
    for place, extent in enumerate(goal):
        source = place if rank == len(goal) else place - len(goal) + rank
        same = emitter.extent(x, source) if 0 <= source < rank and not extent else 1
        extents.append(extent or same)
    return emitter.reshape(x, extents)


@export("reshape_like", moves=True)
def reshape_like(
    emitter: Emitter,
    call: Call,
    x: str,
    ref_tensors: list[str],
    begins: list[str],
    ends: list[str],
    end_masks: list[str],
) -> str:
    extents: list[int | str] = []
    for like, *limits in zip(ref_tensors, begins, ends, end_masks, strict=True):
        known = [values_of(emitter, value) for value in limits]
        if None in known:
            raise refuse("which axes it takes over is not known")
        begin, end, to_the_end = (value[0] for value in known if value is not None)
        extents += emitter.extents(like)[begin : None if to_the_end else end]
    return emitter.reshape(x, extents)


@export("expand_dims", moves=True)
def expand_dims(emitter: Emitter, call: Call, x: str, axes: Ints) -> str:
    return emitter.expand(x, vector(axes))


@export("squeeze", moves=True)
def squeeze(emitter: Emitter, call: Call, x: str, axes: Ints | None) -> str:
    if axes is None:
        extents = emitter.shapes.get(x)
        if extents is None or None in extents:
            return emitter.node("Squeeze", x)
        return emitter.squeeze(x, [axis for axis, n in enumerate(extents) if n == 1])
    return emitter.squeeze(x, axes_of(vector(axes), emitter.rank(x)))


@export("flatten2d", moves=True)
def flatten2d(emitter: Emitter, call: Call, x: str, axis: int) -> str:
    return emitter.node("Flatten", x, axis=axis)


@export("reverse", moves=True)
def reverse(emitter: Emitter, call: Call, x: str, axes: Ints | None) -> str:
    rank = emitter.rank(x)
    for axis in range(rank) if axes is None else axes_of(vector(axes), rank):
        x = emitter.sliced(x, axis, -1, _BEFORE, -1)
    return x


@export("reverse_sequence", moves=True)
def reverse_sequence(
    emitter: Emitter, call: Call, x: str, lengths: str, seq_axis: int, batch_axis: int
) -> str:
    """Reverses the first entries of every sample (`lengths`); samples move to the front."""
    rank = emitter.rank(x)
    front = [batch_axis % rank, seq_axis % rank]
    if front[0] == front[1]:
        raise refuse("its samples lie along the axis that it turns around")
    order = [*front, *(axis for axis in range(rank) if axis not in front)]
    wide = cast(emitter, x, "int32") if call.dtype == "bool" else x
    y = emitter.node(
        "ReverseSequence",
        emitter.transpose(wide, order),
        emitter.whole(lengths),
        batch_axis=0,
        time_axis=1,
    )
    y = emitter.node("Transpose", y, perm=inverse(order))
    return cast(emitter, y, "bool") if call.dtype == "bool" else y


_BLOCKS = {"depth_to_space": "DCR", "pixel_shuffle": "CRD"}


@export("depth_to_space", moves=True)
def depth_to_space(emitter: Emitter, call: Call, x: str, block_size: int) -> str:
    return emitter.node("DepthToSpace", x, blocksize=block_size, mode=_BLOCKS[call.op])


@export("pixel_shuffle", moves=True)
def pixel_shuffle(emitter: Emitter, call: Call, x: str, upscale_factor: int) -> str:
    return emitter.node("DepthToSpace", x, blocksize=upscale_factor, mode=_BLOCKS[call.op])


@export("space_to_depth", moves=True)
def space_to_depth(emitter: Emitter, call: Call, x: str, block_size: int) -> str:
    return emitter.node("SpaceToDepth", x, blocksize=block_size)


@export("pixel_unshuffle", moves=True)
def pixel_unshuffle(emitter: Emitter, call: Call, x: str, downscale_factor: int) -> str:
    n, c, h, w = emitter.extents(x)
    by = int(downscale_factor)
    rows, columns = divided(emitter, h, by), divided(emitter, w, by)
    y = emitter.reshape(x, [n, c, rows, by, columns, by])
    y = emitter.transpose(y, [0, 1, 3, 5, 2, 4])
    return emitter.reshape(y, [n, times(emitter, c, by * by), rows, columns])


@export("space_to_batch", moves=True)
def space_to_batch(emitter: Emitter, call: Call, x: str, block_shape: Ints, paddings: Array) -> str:
    (down, across), edges = vector(block_shape), np.asarray(paddings).reshape(2, 2)
    amounts = [0, 0, *edges[:, 0].tolist(), 0, 0, *edges[:, 1].tolist()]
    n, c, *size = emitter.extents(x)
    x = emitter.node("Pad", x, emitter.integers(amounts))
    places = zip((-2, -1), size, edges.sum(axis=1).tolist(), (down, across), strict=True)
    rows, columns = (
        (extent + edge) // block
        if isinstance(extent, int)
        else divided(emitter, emitter.node("Shape", x, start=axis, end=axis + 1 or None), block)
        for axis, extent, edge, block in places
    )
    y = emitter.reshape(x, [n, c, rows, down, columns, across])
    y = emitter.transpose(y, [3, 5, 0, 1, 2, 4])
    return emitter.reshape(y, [times(emitter, n, down * across), c, rows, columns])


@export("batch_to_space", moves=True)
def batch_to_space(emitter: Emitter, call: Call, x: str, block_shape: Ints, crops: Array) -> str:
    (down, across), edges = vector(block_shape), np.asarray(crops).reshape(2, 2)
    n, c, h, w = emitter.extents(x)
    batch = divided(emitter, n, math.prod((down, across)))
    y = emitter.reshape(x, [down, across, batch, c, h, w])
    y = emitter.transpose(y, [2, 3, 4, 0, 5, 1])
    y = emitter.reshape(y, [batch, c, times(emitter, h, down), times(emitter, w, across)])
    for axis, (before, after) in zip((2, 3), edges.tolist(), strict=True):
        if before or after:
            y = emitter.sliced(y, axis, before, -after or np.iinfo(np.int64).max)
    return y
