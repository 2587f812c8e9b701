"""Reshapes and transposes, also of values with more axes than Core ML has, for every frontend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mlferry.converters.layout import SOURCE, Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import known, rank, shaped, vector
from mlferry.errors import ConversionError

MOST_AXES = 5


def reshaped(low: Lowering, x: Blob, wanted: Sequence[int | None]) -> Blob:
    """A blob in a shape of the source, in which one extent may be -1 or unknown.

    A shape of more than five axes is remembered only: a transpose between two such reshapes
    moves groups of axes.
    """
    target = list(wanted)
    if -1 in target:
        place = target.index(-1)
        source = () if x.is_scalar else x.known
        target[place] = None
        if None not in source:
            rest = math.prod(n for n in target if n is not None)
            target[place] = math.prod(known(x)) // max(rest, 1)
    if len(target) > MOST_AXES:
        return replace(vector(x), shape=tuple(target))
    return shaped(low, as_stored(low, x), target)


def as_stored(low: Lowering, x: Blob) -> Blob:
    """A blob of more axes than Core ML has, with those that it really has."""
    return x if rank(x) <= MOST_AXES else replace(x, shape=low.builder.shapes[x.name])


def transposed(low: Lowering, x: Blob, axes: Sequence[int]) -> Blob:
    """The axes of the source in another order.

    Raises:
        ConversionError: more than five groups of axes move on their own.
    """
    if x.is_scalar or list(axes) == list(range(x.rank)):
        return x
    if x.rank <= MOST_AXES:
        return low.layer("transpose", x, layout=SOURCE, axes=axes)
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
    folded = low.reshape(as_stored(low, x), merged, layout=SOURCE)
    turned = low.layer("transpose", folded, layout=SOURCE, axes=[order.index(g) for g in groups])
    return replace(turned, shape=tuple(shape[a] for a in axes))
