"""Gradients of layers whose output has the shape of another blob."""

from __future__ import annotations

from mlferry.layers.gradients import SHAPES, Array, LayerRun, gradient, no_gradient
from mlferry.numerics.gradients import reduced_to

no_gradient("getShape", "fillLike", "fillStatic", "fillDynamic", "rangeStatic", "rangeDynamic")


@gradient("copy", keeps=SHAPES)
def copy(run: LayerRun, dy: Array) -> Array:
    return dy


@gradient("broadcastToLike", "broadcastToStatic", "broadcastToDynamic", keeps=SHAPES)
def broadcast(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    return (reduced_to(dy, run.input_shapes[0]), None)[: len(run.input_shapes)]


@gradient("reshapeLike", "reshapeDynamic", keeps=SHAPES)
def reshape(run: LayerRun, dy: Array) -> tuple[Array | None, ...]:
    return dy.reshape(run.input_shapes[0]), None
