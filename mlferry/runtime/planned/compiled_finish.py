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
    """Steps of a table that apply some functions, one after another.

    Args:
        x: a map [H, W, C].
        y: the result, [H, W, C]; it may be `x`.
        steps: the functions.

    Returns:
        None if a function is not known, or the values of a map lie apart; see `joined`.
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
    """The steps of one function; see `following`."""
    return None


@_tasks.register
def _(step: NamedFunction, x: Array, y: Array) -> Sequence[Step] | None:
    return _applied(step.name, x, y) if step.name in functions.PLACES else None


@_tasks.register
def _(step: Clipping, x: Array, y: Array) -> Sequence[Step] | None:
    return _applied("identity", x, y, step.least, step.most)


@_tasks.register
def _(step: Rounding, x: Array, y: Array) -> Sequence[Step] | None:
    return _applied("half", x, y)


@_tasks.register
def _(step: Combination, x: Array, y: Array) -> Sequence[Step] | None:
    return joined(step.combine, [step.other, x] if step.swapped else [x, step.other], y)


@_tasks.register
def _(step: Affine, x: Array, y: Array) -> Sequence[Step] | None:
    factor, shift = (np.broadcast_to(each, y.shape) for each in (step.factor, step.shift))
    scaled, moved = joined(np.multiply, [x, factor], y), joined(np.add, [y, shift], y)
    return None if scaled is None or moved is None else [*scaled, *moved]


def _applied(name: str, x: Array, y: Array, *limits: np.float32) -> Sequence[Step] | None:
    return [arrays.applied(name, x, y, *limits)] if arrays.applies(x, y) else None


def joined(combine: Callable[..., Array], maps: Sequence[Array], y: Array) -> Sequence[Step] | None:
    """Steps that combine maps of one shape, two at a time.

    Returns:
        None if the function is not known, or the values of a map lie apart, as those of a map of
        one channel do that is a part of a concatenation.
    """
    name = getattr(combine, "__name__", "")
    if name not in arithmetic.PLACES:
        return None
    total, *others = maps
    result: list[Step] = []
    for other in others:
        if not arrays.combines(total, other, y):
            return None
        result.append(arrays.combined(name, total, other, y, Ends()))
        total = y
    return result
