"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    EXTENTS,
    Change,
    RankUnknownError,
    layer_kind,
    layer_rule,
    size_check,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, broadcast, product, show
from mlferry.spec.problems import Problems, listed, warning
from mlferry.spec.proto import neural_network_pb2 as nn


def held(shape: Shape) -> Shape:
    """The shape that a blob of this shape holds; only its rank is known."""
    if len(shape) != 1:
        raise SpecError(f"a shape comes as a vector, not as {show(shape)}")
    if shape[0] is None:
        raise RankUnknownError
    return (None,) * shape[0]


@layer_kind("getShape", inputs=1)
def get_shape(params: Params, shape: Shape) -> list[Shape]:
    return [(len(shape),)]


@layer_kind("fillLike", "copy", inputs=1)
def like(params: Params, shape: Shape) -> list[Shape]:
    return [shape]


@layer_kind("fillStatic", inputs=0, lists={"targetShape": EXTENTS})
def fill_static(params: Params) -> list[Shape]:
    return [params.targetShape]


@layer_kind("fillDynamic", inputs=1)
def fill_dynamic(params: Params, target: Shape) -> list[Shape]:
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


@layer_kind("broadcastToLike", inputs=2)
def broadcast_to_like(params: Params, shape: Shape, target: Shape) -> list[Shape]:
    return [to(shape, target)]


@layer_kind("broadcastToStatic", inputs=1, lists={"targetShape": EXTENTS})
def broadcast_to_static(params: Params, shape: Shape) -> list[Shape]:
    return [to(shape, params.targetShape)]


@layer_kind("broadcastToDynamic", inputs=2)
def broadcast_to_dynamic(params: Params, shape: Shape, target: Shape) -> list[Shape]:
    return [held(target)]


@layer_kind("reshapeLike", inputs=2)
def reshape_like(params: Params, shape: Shape, target: Shape) -> list[Shape]:
    sizes = product(shape), product(target)
    if None not in sizes and sizes[0] != sizes[1]:
        raise SpecError(f"{show(shape)} and {show(target)} have different numbers of elements")
    return [target]


@layer_kind("reshapeDynamic", inputs=2)
def reshape_dynamic(params: Params, shape: Shape, target: Shape) -> list[Shape]:
    return [held(target)]


def steps(start: float, end: float, step: float) -> int:
    """How many values a range has, counted in float32 as its ends are."""
    if step == 0:
        raise SpecError("a range needs a step other than 0")
    count = (np.float32(end) - np.float32(start)) / np.float32(step)
    return max(0, int(np.ceil(count)))


@layer_kind("rangeStatic", inputs=0, evaluated=(0, 1), defaults={"stepSizeValue": 1.0})
def range_static(params: Params, *unread: Shape) -> list[Shape]:
    """Older tools write an unused input."""
    return [(steps(params.startValue, params.endValue, params.stepSizeValue),)]


@layer_kind("rangeDynamic", inputs=(1, 3), defaults={"stepSizeValue": 1.0})
def range_dynamic(params: Params, end: Shape, *others: Shape) -> list[Shape]:
    return [(None,)]


@size_check("broadcastToStatic")
def bound_broadcast_to_static(params: Params, change: Change) -> str:
    """Extents of 1 that vary would be broadcast to fixed ones."""
    return f"its target shape {show(params.targetShape)} is fixed" if change.varying() else ""


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("copy")
def check_copy(layer: nn.NeuralNetworkLayer, params: nn.CopyLayerParams) -> Problems:
    """A copy has another name."""
    if list(layer.input[:1]) == list(layer.output[:1]):
        yield warning(f"it copies {listed(layer.input)} to itself")
