"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from mlferry.layers.dynamic.definition import steps
from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import FLOAT, INT64, Emitter


def filled(e: Emitter, value: float, shape: str) -> str:
    """A value everywhere."""
    known = e.known(shape)
    if known is not None and known.prod() <= 1:
        return e.constant(np.full(known, value, np.float32))
    y = e.node("ConstantOfShape", shape, value=np.array([value], np.float32))
    e.shapes[y] = None if known is None else tuple(known.tolist())
    return y


@op("copy")
def copy(e: Emitter, p: Params, x: str) -> str:
    return x


@op("getShape")
def get_shape(e: Emitter, p: Params, x: str) -> str:
    return e.from_whole(e.shape_vector(x))


@op("fillLike")
def fill_like(e: Emitter, p: Params, x: str) -> str:
    return filled(e, p.value, e.shape_vector(x))


@op("fillStatic")
def fill_static(e: Emitter, p: Params) -> str:
    return filled(e, p.value, e.integers(p.targetShape))


@op("fillDynamic")
def fill_dynamic(e: Emitter, p: Params, shape: str) -> str:
    return filled(e, p.value, e.whole(shape))


@op("broadcastToLike")
def broadcast_to_like(e: Emitter, p: Params, x: str, like: str) -> str:
    return _broadcast(e, x, e.shape_vector(like))


def _broadcast(e: Emitter, x: str, shape: str) -> str:
    """To a shape, one way only: a blob that has more values than it is an error."""
    y = e.node("Expand", x, shape)
    return y if e.known(shape) is not None else e.node("Reshape", y, shape)


@op("broadcastToStatic")
def broadcast_to_static(e: Emitter, p: Params, x: str) -> str:
    return e.node("Expand", x, e.integers(p.targetShape))


@op("broadcastToDynamic")
def broadcast_to_dynamic(e: Emitter, p: Params, x: str, shape: str) -> str:
    return _broadcast(e, x, e.whole(shape))


@op("reshapeLike")
def reshape_like(e: Emitter, p: Params, x: str, like: str) -> str:
    return e.reshape(x, e.extents(like))


@op("reshapeDynamic")
def reshape_dynamic(e: Emitter, p: Params, x: str, shape: str) -> str:
    """One extent of the shape may be -1; it takes what is left."""
    target = e.whole(shape)
    known = e.known(target)
    if known is not None:
        return e.reshape(x, known.tolist())
    return e.node("Reshape", x, target)


@op("rangeStatic")
def range_static(e: Emitter, p: Params) -> str:
    count = steps(p.startValue, p.endValue, p.stepSizeValue)
    places = np.arange(count, dtype=np.float32)
    return e.constant(np.float32(p.startValue) + np.float32(p.stepSizeValue) * places)


@op("rangeDynamic")
def range_dynamic(e: Emitter, p: Params, end: str, *others: str) -> str:
    """What does not come as an input is that of the parameters; counted in float32."""
    start, step = (
        e.reshape(others[index], []) if index < len(others) else e.number(value)
        for index, value in enumerate((p.startValue, p.stepSizeValue))
    )
    span = e.node("Sub", e.reshape(end, []), start)
    count = e.node("Cast", e.node("Ceil", e.node("Div", span, step)), to=INT64)
    if len(others) > 1:  # a step of 0 reads behind the end of this vector: an error
        still = e.node("Cast", e.node("Equal", step, e.number(0)), to=INT64)
        count = e.node("Add", count, e.node("Gather", e.integers([0]), still))
    count = e.node("Max", count, e.constant(np.int64(0)))
    places = e.node("Range", e.constant(np.int64(0)), count, e.constant(np.int64(1)))
    e.shapes[places] = (None,)
    return e.node("Add", e.node("Mul", e.node("Cast", places, to=FLOAT), step), start)
