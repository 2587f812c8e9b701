"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value


@as_program("getShape")
def get_shape(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    if x.is_fixed:
        return builder.integers([n or 0 for n in x.shape])
    return builder.op("shape", x=x)


def target(builder: ProgramBuilder, params: Params, field: str, *given: Value) -> Value:
    """The shape that the kind's name says: that of an input, a stored one, or one of an input."""
    if not given:
        return builder.integers(getattr(params, field))
    if params.kind.endswith("Like"):
        return builder.vector(builder.extents(given[0]))
    return builder.as_integer(given[0])


@as_program("fillLike", "fillStatic", "fillDynamic")
def fill(builder: ProgramBuilder, params: Params, *given: Value) -> Value:
    shape = target(builder, params, "targetShape", *given)
    return builder.op("fill", shape=shape, value=np.float32(params.value))


@as_program("broadcastToLike")
def broadcast_to_like(builder: ProgramBuilder, params: Params, x: Value, like: Value) -> Value:
    return builder.broadcast(x, builder.extents(like))


@as_program("broadcastToStatic")
def broadcast_to_static(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return builder.broadcast(x, list(params.targetShape))


@as_program("broadcastToDynamic")
def broadcast_to_dynamic(builder: ProgramBuilder, params: Params, x: Value, shape: Value) -> Value:
    target = builder.as_integer(shape)
    if target.is_constant:
        return builder.broadcast(x, [int(n) for n in target.constant])
    return builder.broadcast_to(x, target)


@as_program("reshapeDynamic")
def reshape_dynamic(builder: ProgramBuilder, params: Params, x: Value, shape: Value) -> Value:
    """One extent of the shape may be -1; it is inferred."""
    target = builder.as_integer(shape)
    if target.is_constant:
        return builder.reshape(x, [int(n) for n in target.constant])
    return builder.op("reshape", x=x, shape=target)


@as_program("rangeDynamic")
def range_dynamic(builder: ProgramBuilder, params: Params, end: Value, *others: Value) -> Value:
    """Parameters replace missing inputs."""
    ends = [end, *others]
    for value in (params.startValue, params.stepSizeValue)[len(others) :]:
        ends.append(builder.number(value))
    last, start, step = builder.alike(*(builder.reshape(x, []) for x in ends))
    return builder.op("range_1d", end=last, start=start, step=step)
