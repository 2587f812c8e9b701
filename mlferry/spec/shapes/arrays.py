"""Layers that join, split, repeat, slice or make arrays."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Shape, axis_of, need_rank, replaced, rule, show, total


def joined(shapes: tuple[Shape, ...], axis: int) -> Shape:
    """The shape of a concatenation.

    Raises:
        SpecError: ranks, or extents off the axis, differ.
    """
    if not shapes:
        raise SpecError("nothing to concatenate")
    if len({len(shape) for shape in shapes}) != 1:
        raise SpecError(f"inputs of different ranks: {', '.join(map(show, shapes))}")
    axis = axis_of(axis, len(shapes[0]))
    result = []
    for index, extents in enumerate(zip(*shapes, strict=True)):
        known = set(extents) - {None}
        if index == axis:
            result.append(total(extents))
        elif len(known) > 1:
            raise SpecError(f"inputs differ off axis {axis}: {', '.join(map(show, shapes))}")
        else:
            result.append(known.pop() if known else None)
    return tuple(result)


@rule("concat")
def concat(p: Params, *shapes: Shape) -> list[Shape]:
    return [joined(shapes, -5 if p.sequenceConcat else -3)]


@rule("concatND")
def concat_nd(p: Params, *shapes: Shape) -> list[Shape]:
    if p.interleave and len({shape for shape in shapes if None not in shape}) > 1:
        raise SpecError(f"interleaved inputs differ: {', '.join(map(show, shapes))}")
    return [joined(shapes, p.axis)]


@rule("stack")
def stack(p: Params, *shapes: Shape) -> list[Shape]:
    if not shapes:
        raise SpecError("nothing to stack")
    axis = axis_of(p.axis, len(shapes[0]) + 1)
    if len(set(shapes)) != 1:
        raise SpecError(f"inputs differ: {', '.join(map(show, shapes))}")
    return [(*shapes[0][:axis], len(shapes), *shapes[0][axis:])]


@rule("tile")
def tile(p: Params, shape: Shape, *dynamic: Shape) -> list[Shape]:
    """Fewer repetitions than axes are those of the last axes."""
    if dynamic:
        return [(None,) * len(shape)]
    if len(p.reps) > len(shape):
        raise SpecError(f"{len(p.reps)} repetitions for {show(shape)}")
    reps = (1,) * (len(shape) - len(p.reps)) + p.reps
    return [tuple(None if n is None else n * r for n, r in zip(shape, reps, strict=True))]


@rule("loadConstantND")
def load_constant_nd(p: Params) -> list[Shape]:
    return [tuple(p.shape)]


@rule("loadConstant")
def load_constant(p: Params) -> list[Shape]:
    if len(p.shape) != 3:
        raise SpecError(f"the shape of a constant is C, H, W, not {show(p.shape)}")
    return [(1, 1, *p.shape)]


@rule("sequenceRepeat")
def sequence_repeat(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 5)
    steps = shape[-5]
    return [replaced(shape, -5, None if steps is None else steps * p.nRepetitions)]


@rule("splitND")
def split_nd(p: Params, shape: Shape) -> list[Shape]:
    axis = axis_of(p.axis, len(shape))
    extent = shape[axis]
    if p.splitSizes:
        sizes = list(p.splitSizes)
        if extent is not None and sum(sizes) != extent:
            raise SpecError(f"split sizes {sizes} do not add up to {extent}")
        return [replaced(shape, axis, size) for size in sizes]
    if p.numSplits < 1 or (extent is not None and extent < p.numSplits):
        raise SpecError(f"{p.numSplits} parts of axis {axis} of {show(shape)}")
    if extent is None:
        return [replaced(shape, axis, None)] * p.numSplits
    part, longer = divmod(extent, p.numSplits)  # the first parts take what is over
    return [replaced(shape, axis, part + (index < longer)) for index in range(p.numSplits)]
