"""Other shapes and orders of the same values."""

from __future__ import annotations

import math

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Extent, Shape, axis_of, product
from mlferry.programs.definitions import (
    ANY,
    BOOL,
    INT32,
    NUMBERS,
    SIGNED,
    Operand,
    Operands,
    Parameter,
    const,
    need,
    newer,
    op_kind,
    option,
    several,
)
from mlferry.programs.types import Entries, TensorType, ValueType, compatible

OLD = {"T": NUMBERS | BOOL}
NEW = {"T": ANY}


def axes_of(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, each once."""
    places = tuple(axis_of(axis, rank) for axis in axes)
    if len(set(places)) < len(places):
        raise SpecError(f"axes {list(axes)} name one axis twice")
    return places


def vector(known: Entries) -> tuple[int, ...]:
    """A constant of one axis; a scalar counts as a vector of one element."""
    return known if isinstance(known, tuple) else (known,)


@op_kind("identity", x=Parameter(ANY, tensor=False))
def identity(operands: Operands) -> ValueType:
    return operands.x.type


@op_kind("shape", x=need(NUMBERS | BOOL))
def shape(operands: Operands) -> TensorType:
    return TensorType("int32", (operands.x.rank,))


@newer(7, "transpose", variables=NEW)
@op_kind("transpose", variables=OLD, x=need("T"), perm=const(INT32))
def transpose(operands: Operands) -> TensorType:
    x, order = operands.x, vector(operands.perm.known)
    if sorted(axis % x.rank if x.rank else axis for axis in order) != list(range(x.rank)):
        raise SpecError(f"perm {list(order)} is not a permutation of the axes of {x.type}")
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in order))


@newer(7, "reshape", variables={**NEW, "U": SIGNED}, shape=need("U"))
@op_kind("reshape", variables=OLD, x=need("T"), shape=need(INT32))
def reshape(operands: Operands) -> TensorType:
    """0 keeps an extent, -1 means the rest."""
    x, target = operands.x, operands.shape
    if target.value is None:
        rank = target.shape[0] if target.rank else None
        return TensorType(x.dtype, None if rank is None else (None,) * rank)
    goal = vector(target.known)
    if goal.count(-1) > 1:
        raise SpecError(f"shape is {list(goal)}; only one extent may be -1")
    extents: list[Extent] = [None if n == -1 else n for n in resolved(goal, x.tensor.shape)]
    total = product(x.shape) if x.tensor.shape is not None else None
    if total is not None and -1 in goal:
        rest = math.prod(n for n in extents if n is not None)
        open_ones = [i for i, n in enumerate(goal) if n == -1]
        if None not in (extents[: open_ones[0]] + extents[open_ones[0] + 1 :]):
            if not rest or total % rest:
                raise SpecError(f"{x.type} does not fit into the shape {list(goal)}")
            extents[open_ones[0]] = total // rest
    elif total is not None and None not in extents and product(tuple(extents)) != total:
        raise SpecError(f"{x.type} does not fit into the shape {list(goal)}")
    return TensorType(x.dtype, tuple(extents))


def resolved(goal: tuple[int, ...], shape: Shape | None) -> list[Extent]:
    """A shape in which 0 stands for the extent of the input at the same place.

    If the input has more or fewer axes, places count from the end, and extents beyond them are 1.
    """
    extents: list[Extent] = []
    for place, extent in enumerate(goal):
        if extent != 0 or shape is None:
            extents.append(extent if extent != 0 else None)
        elif len(shape) == len(goal):
            extents.append(shape[place])
        else:
            from_end = place - len(goal)
            extents.append(shape[from_end] if -from_end <= len(shape) else 1)
    return extents


@newer(7, "reshape_like", variables=NEW, ref_tensors=several(ANY))
@op_kind(
    "reshape_like",
    since=6,
    variables=OLD,
    x=need("T"),
    ref_tensors=several(NUMBERS | BOOL),
    begins=several(INT32),
    ends=several(INT32),
    end_masks=several(BOOL),
)
def reshape_like(operands: Operands) -> TensorType:
    """The extents of some axes of other tensors, one after another."""
    extents: list[Extent] = []
    parts = zip(
        operands.ref_tensors, operands.begins, operands.ends, operands.end_masks, strict=True
    )
    for like, begin, end, to_the_end in parts:
        last = None if to_the_end.known else end.known
        extents += like.shape[begin.known : last]
    before, after = product(operands.x.shape), product(tuple(extents))
    if None not in (before, after) and before != after:
        raise SpecError(f"{operands.x.type} does not fit into the shape {extents}")
    return TensorType(operands.x.dtype, tuple(extents))


@newer(7, "expand_dims", variables=NEW)
@op_kind("expand_dims", variables=OLD, x=need("T"), axes=const(INT32))
def expand_dims(operands: Operands) -> TensorType:
    x, axes = operands.x, vector(operands.axes.known)
    places = axes_of(axes, x.rank + len(axes))
    rest = iter(x.shape)
    extents = [1 if i in places else next(rest) for i in range(x.rank + len(axes))]
    return TensorType(x.dtype, tuple(extents))


@newer(7, "squeeze", variables=NEW)
@op_kind("squeeze", variables=OLD, x=need("T"), axes=option(INT32))
def squeeze(operands: Operands) -> TensorType:
    x = operands.x
    if operands.axes is None:
        return TensorType(x.dtype, tuple(n for n in x.shape if n != 1))
    places = axes_of(vector(operands.axes.known), x.rank)
    if any(x.shape[i] not in (1, None) for i in places):
        raise SpecError(f"axes {list(places)} of {x.type} are not all 1")
    return TensorType(x.dtype, tuple(n for i, n in enumerate(x.shape) if i not in places))


@op_kind("flatten2d", variables=OLD, x=need("T"), axis=option(INT32, 1))
def flatten2d(operands: Operands) -> TensorType:
    x, axis = operands.x, operands.axis.known
    axis = axis + x.rank if axis < 0 else axis
    if not 0 <= axis <= x.rank:
        raise SpecError(f"axis {operands.axis.known} does not exist in {x.type}")
    return TensorType(x.dtype, (product(x.shape[:axis]), product(x.shape[axis:])))


@newer(7, "reverse", variables=NEW)
@op_kind("reverse", variables=OLD, x=need("T"), axes=option(INT32))
def reverse(operands: Operands) -> TensorType:
    if operands.axes is not None:
        axes_of(vector(operands.axes.known), operands.x.rank)
    return operands.x.tensor


@newer(7, "reverse_sequence", variables={**NEW, "U": SIGNED}, lengths=need("U"))
@op_kind(
    "reverse_sequence",
    variables=OLD,
    x=need("T"),
    lengths=need(INT32),
    seq_axis=option(INT32, 0),
    batch_axis=option(INT32, 0),
)
def reverse_sequence(operands: Operands) -> TensorType:
    x = operands.x
    batch = axis_of(operands.batch_axis.known, x.rank)
    axis_of(operands.seq_axis.known, x.rank)
    if not compatible(operands.lengths.shape, (x.shape[batch],)):
        raise SpecError(f"lengths is {operands.lengths.type}; axis {batch} of {x.type} needs one")
    return x.tensor


def _divided(extent: Extent, block: int, subject: str) -> Extent:
    if extent is None:
        return None
    if block < 1 or extent % block:
        raise SpecError(f"{subject} of {extent} is not divided by {block}")
    return extent // block


def _times(extent: Extent, block: int) -> Extent:
    return None if extent is None else extent * block


def _maps(x: Operand) -> tuple[Extent, Extent, Extent, Extent]:
    if x.rank != 4:
        raise SpecError(f"x is {x.type}; it needs 4 axes: N, C, H, W")
    batch, channels, height, width = x.shape
    return batch, channels, height, width


@op_kind("depth_to_space", x=need("T"), block_size=const(INT32))
@op_kind("pixel_shuffle", x=need("T"), upscale_factor=const(INT32))
def to_space(operands: Operands) -> TensorType:
    block = getattr(operands, "block_size", None) or operands.upscale_factor
    n, c, h, w = _maps(operands.x)
    block = block.known
    channels = _divided(c, block * block, "the number of channels")
    return TensorType(operands.x.dtype, (n, channels, _times(h, block), _times(w, block)))


@op_kind("space_to_depth", x=need("T"), block_size=const(INT32))
@op_kind("pixel_unshuffle", since=6, x=need("T"), downscale_factor=const(frozenset({"uint32"})))
def to_depth(operands: Operands) -> TensorType:
    block = getattr(operands, "block_size", None) or operands.downscale_factor
    n, c, h, w = _maps(operands.x)
    block = block.known
    size = (_divided(h, block, "the height"), _divided(w, block, "the width"))
    return TensorType(operands.x.dtype, (n, _times(c, block * block), *size))


@op_kind("space_to_batch", x=need("T"), block_shape=const(INT32), paddings=const(INT32))
def space_to_batch(operands: Operands) -> TensorType:
    """Blocks of padded height and width become samples."""
    n, c, *size = operands.x.shape
    blocks, pads = vector(operands.block_shape.known), operands.paddings.known
    spatial = [
        _divided(None if extent is None else extent + sum(edge), block, "a padded axis")
        for extent, block, edge in zip(size, blocks, pads, strict=True)
    ]
    return TensorType(operands.x.dtype, (_times(n, math.prod(blocks)), c, *spatial))


@op_kind("batch_to_space", x=need("T"), block_shape=const(INT32), crops=const(INT32))
def batch_to_space(operands: Operands) -> TensorType:
    """The inverse: samples become blocks, which are cropped."""
    n, c, *size = operands.x.shape
    blocks, crops = vector(operands.block_shape.known), operands.crops.known
    spatial = [
        None if extent is None else extent * block - sum(edge)
        for extent, block, edge in zip(size, blocks, crops, strict=True)
    ]
    batch = _divided(n, math.prod(blocks), "the batch")
    return TensorType(operands.x.dtype, (batch, c, *spatial))
