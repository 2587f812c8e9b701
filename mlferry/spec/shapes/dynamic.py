"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import (
    Change,
    RankUnknownError,
    Shape,
    broadcast,
    product,
    rule,
    show,
    size_check,
)


def held(shape: Shape) -> Shape:
    """What is known of a shape that a blob of this shape holds: its rank."""
    if len(shape) != 1:
        raise SpecError(f"a shape comes as a vector, not as {show(shape)}")
    if shape[0] is None:
        raise RankUnknownError
    return (None,) * shape[0]


@rule("getShape")
def get_shape(p: Params, shape: Shape) -> list[Shape]:
    return [(len(shape),)]


@rule("fillLike", "copy")
def like(p: Params, shape: Shape) -> list[Shape]:
    return [shape]


@rule("fillStatic")
def fill_static(p: Params) -> list[Shape]:
    return [p.targetShape]


@rule("fillDynamic")
def fill_dynamic(p: Params, target: Shape) -> list[Shape]:
    return [held(target)]


def to(shape: Shape, target: Shape) -> Shape:
    """The target of a broadcast.

    Raises:
        SpecError: the shape does not broadcast to it.
    """
    result = broadcast(shape, target)
    if len(result) != len(target) or any(
        None not in (a, b) and a != b for a, b in zip(result, target, strict=True)
    ):
        raise SpecError(f"{show(shape)} does not broadcast to {show(target)}")
    return target


@rule("broadcastToLike")
def broadcast_to_like(p: Params, shape: Shape, target: Shape) -> list[Shape]:
    return [to(shape, target)]


@rule("broadcastToStatic")
def broadcast_to_static(p: Params, shape: Shape) -> list[Shape]:
    return [to(shape, p.targetShape)]


@rule("broadcastToDynamic")
def broadcast_to_dynamic(p: Params, shape: Shape, target: Shape) -> list[Shape]:
    return [held(target)]


@rule("reshapeLike")
def reshape_like(p: Params, shape: Shape, target: Shape) -> list[Shape]:
    sizes = product(shape), product(target)
    if None not in sizes and sizes[0] != sizes[1]:
        raise SpecError(f"{show(shape)} and {show(target)} have different numbers of elements")
    return [target]


@rule("reshapeDynamic")
def reshape_dynamic(p: Params, shape: Shape, target: Shape) -> list[Shape]:
    return [held(target)]


def steps(start: float, end: float, step: float) -> int:
    """How many values a range has, counted in float32 as its ends are."""
    if step == 0:
        raise SpecError("a range needs a step other than 0")
    count = (np.float32(end) - np.float32(start)) / np.float32(step)
    return max(0, int(np.ceil(count)))


@rule("rangeStatic")
def range_static(p: Params) -> list[Shape]:
    return [(steps(p.startValue, p.endValue, p.stepSizeValue),)]


@rule("rangeDynamic")
def range_dynamic(p: Params, end: Shape, *others: Shape) -> list[Shape]:
    return [(None,)]


@size_check("broadcastToStatic")
def bound_broadcast_to_static(p: Params, change: Change) -> str:
    """Extents of 1 that vary would meet those that are fixed."""
    return f"its target shape {show(p.targetShape)} is fixed" if change.varying() else ""
