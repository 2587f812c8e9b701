"""Reshapes and transposes, even of values with more axes than Core ML has, for all frontends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, known, rank, shaped, vector
from mlferry.converters.sizes import spelled, use
from mlferry.converters.values import SOURCE, Blob, Constant
from mlferry.errors import ConversionError

MOST_AXES = 5


def reshaped(context: Lowering, x: Blob, extents: Sequence[int | None]) -> Blob:
    """A blob in a shape of the source, in which one extent may be -1 or unknown.

    A shape of more than five axes is only remembered: a transpose between two such reshapes moves
    groups of axes.
    """
    target = list(extents)
    if -1 in target:
        target[target.index(-1)] = None
    source = () if x.is_scalar else x.known
    if None not in target and tuple(target) == source:
        use(x)  # the source refuses others
    if target.count(None) != 1 or None in source:
        return _reshaped(context, x, target)
    place = target.index(None)
    rest = math.prod(n for n in target if n is not None)
    whole = list(target)
    whole[place] = math.prod(n for n in source if n is not None) // max(rest, 1)
    if len(target) > MOST_AXES or len(source) > MOST_AXES or not source:
        known(x)  # a shape that is only remembered, or the shape of one number
        return _reshaped(context, x, whole)
    if tuple(whole) == source:  # at other sizes, too, if the other extents stay
        use(x, [axis for axis in range(x.rank) if axis != place])
        return x
    return context.reshape(x, tuple(target), layout=SOURCE)


def heads_apart(context: Lowering, x: Blob, heads: int) -> Blob:
    """[batch, length, heads * units] as [batch, length, heads, units], at any size."""
    batch, length, _ = x.known
    units = extent(x, 2) // heads
    if None not in (batch, length):
        return context.reshape(x, (batch, length, heads, units), layout=SOURCE)
    return of_same_rank(context, context.expand(x, 3), (0, 0, heads, units))


def heads_joined(context: Lowering, x: Blob) -> Blob:
    """[batch, length, heads, units] as [batch, length, heads * units], at any size."""
    batch, length, *_ = x.known
    width = extent(x, 2) * extent(x, 3)
    if None not in (batch, length):
        return context.reshape(x, (batch, length, width), layout=SOURCE)
    return context.squeeze(of_same_rank(context, x, (0, 0, width, 1)), 3)


def of_same_rank(context: Lowering, x: Blob, target: Sequence[int]) -> Blob:
    """A reshape in which a 0 keeps an extent, whatever it is, and one -1 means the rest."""
    output = context.layer("rankPreservingReshape", x, layout=SOURCE, targetShape=target)
    layer = context.builder.network.layers[-1]
    for tensors in (layer.inputTensor, layer.outputTensor):
        tensors.add(rank=len(target))
    return output


def _reshaped(context: Lowering, x: Blob, target: Sequence[int | None]) -> Blob:
    if len(target) > MOST_AXES:
        return replace(vector(x), shape=tuple(target))
    return shaped(context, as_stored(context, x), target)


def to_shape(context: Lowering, x: Blob, shape: Constant) -> Blob:
    """A blob in a shape that the source computes, partly from extents: for any size if possible.

    One of the extents may be left open; it is the one that depends on most.
    """
    extents: list[int | None] = [int(n) for n in shape.array.ravel()]
    like = spelled(context.sizes, shape)
    stored = context.builder.shapes.get(like)
    if like and stored == tuple(extents) and rank(x) <= MOST_AXES and not x.is_scalar:
        return context.layer("reshapeLike", x, Blob(like, stored), layout=SOURCE)
    codes = [] if shape.origins is None else shape.origins.ravel().tolist()
    made_of = [context.sizes.sets[code] for code in codes]
    depend = [sum(axis != 0 for _, axis in each) * 2 + bool(each) for each in made_of]
    if -1 not in extents and any(depend) and len(extents) <= MOST_AXES and rank(x) <= MOST_AXES:
        place = len(depend) - 1 - depend[::-1].index(max(depend))
        extents[place] = -1
        made_of[place] = frozenset()
    context.sizes.use(frozenset().union(*made_of))
    return reshaped(context, x, extents)


def as_stored(context: Lowering, x: Blob) -> Blob:
    """A blob of more axes than Core ML has, with the axes that it really has."""
    return x if rank(x) <= MOST_AXES else replace(x, shape=context.builder.shapes[x.name])


def transposed(context: Lowering, x: Blob, axes: Sequence[int]) -> Blob:
    """The axes of the source in another order.

    Raises:
        ConversionError: more than five groups of axes move on their own.
    """
    if x.is_scalar or list(axes) == list(range(x.rank)):
        return x
    if x.rank <= MOST_AXES:
        return context.transpose(x, axes)
    shape = known(x)
    groups: list[list[int]] = []
    for axis in axes:
        if groups and groups[-1][-1] + 1 == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    if len(groups) > MOST_AXES:
        raise ConversionError(
            f"a transpose of {shape} by {tuple(axes)}: {len(groups)} axes move on their own, Core "
            "ML has at most five"
        )
    order = sorted(groups)
    merged = tuple(math.prod(shape[a] for a in group) for group in order)
    folded = context.reshape(as_stored(context, x), merged, layout=SOURCE)
    output = context.transpose(folded, [order.index(g) for g in groups])
    return replace(output, shape=tuple(shape[a] for a in axes))
