"""What follows a result, as steps of a table that compiled code goes through by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch

import numpy as np

from mlferry.compiled import arithmetic, arrays, functions
from mlferry.compiled.arrays import ArrayTask, Ends
from mlferry.runtime.planned.finish import (
    Affine,
    Clipping,
    Combination,
    NamedFunction,
    Pointwise,
    Rounding,
)
from mlferry.runtime.planned.maps import Array

Step = list[ArrayTask]


def following(
    x: Array, y: Array, steps: Sequence[Pointwise | Combination]
) -> Sequence[Step] | None:
    """Steps of a table that apply some functions, one after another; None if one is not known.

    Args:
        x: a map [H, W, C].
        y: the result, [H, W, C]; it may be `x`.
        steps: the functions.
    """
    result: list[Step] = []
    for step in steps:
        made = _tasks(step, x, y)
        if made is None:
            return None
        result += made
        x = y
    return result


@singledispatch
def _tasks(step: Pointwise | Combination, x: Array, y: Array) -> Sequence[Step] | None:
    """The tasks of one or several steps; None where the function is not known."""
    return None


@_tasks.register
def _(step: NamedFunction, x: Array, y: Array) -> Sequence[Step] | None:
    return [arrays.applied(step.name, x, y)] if step.name in functions.PLACES else None


@_tasks.register
def _(step: Clipping, x: Array, y: Array) -> Sequence[Step]:
    return [arrays.applied("identity", x, y, step.least, step.most)]


@_tasks.register
def _(step: Rounding, x: Array, y: Array) -> Sequence[Step]:
    return [arrays.applied("half", x, y)]


@_tasks.register
def _(step: Combination, x: Array, y: Array) -> Sequence[Step] | None:
    return joined(step.combine, [step.other, x] if step.swapped else [x, step.other], y)


@_tasks.register
def _(step: Affine, x: Array, y: Array) -> Sequence[Step]:
    factor, shift = (np.broadcast_to(each, y.shape) for each in (step.factor, step.shift))
    return [
        arrays.combined("multiply", x, factor, y, Ends()),
        arrays.combined("add", y, shift, y, Ends()),
    ]


def joined(combine: Callable[..., Array], maps: Sequence[Array], y: Array) -> Sequence[Step] | None:
    """Steps that combine maps of one shape, two at a time; None if the function is not known."""
    name = getattr(combine, "__name__", "")
    if name not in arithmetic.PLACES:
        return None
    total, *others = maps
    result: list[Step] = []
    for other in others:
        result.append(arrays.combined(name, total, other, y, Ends()))
        total = y
    return result
