"""Layers whose output has the shape of another blob, or one that a blob holds."""

from __future__ import annotations

import numpy as np

from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import INT64, Emitter


def filled(emitter: Emitter, value: float, shape: str) -> str:
    """A value everywhere."""
    known = emitter.known(shape)
    if known is not None and known.prod() <= 1:
        return emitter.constant(np.full(known, value, np.float32))
    y = emitter.node("ConstantOfShape", shape, value=np.array([value], np.float32))
    emitter.shapes[y] = None if known is None else tuple(known.tolist())
    return y


@op("getShape")
def get_shape(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.from_whole(emitter.shape_vector(x))


@op("fillLike")
def fill_like(emitter: Emitter, params: Params, x: str) -> str:
    return filled(emitter, params.value, emitter.shape_vector(x))


@op("fillStatic")
def fill_static(emitter: Emitter, params: Params) -> str:
    return filled(emitter, params.value, emitter.integers(params.targetShape))


@op("fillDynamic")
def fill_dynamic(emitter: Emitter, params: Params, shape: str) -> str:
    return filled(emitter, params.value, emitter.whole(shape))


@op("broadcastToLike")
def broadcast_to_like(emitter: Emitter, params: Params, x: str, like: str) -> str:
    return _broadcast(emitter, x, emitter.shape_vector(like))


def _broadcast(emitter: Emitter, x: str, shape: str) -> str:
    """To a shape, one way only: a blob that has more values than it is an error."""
    y = emitter.node("Expand", x, shape)
    return y if emitter.known(shape) is not None else emitter.node("Reshape", y, shape)


@op("broadcastToStatic")
def broadcast_to_static(emitter: Emitter, params: Params, x: str) -> str:
    return emitter.node("Expand", x, emitter.integers(params.targetShape))


@op("broadcastToDynamic")
def broadcast_to_dynamic(emitter: Emitter, params: Params, x: str, shape: str) -> str:
    return _broadcast(emitter, x, emitter.whole(shape))


@op("reshapeDynamic")
def reshape_dynamic(emitter: Emitter, params: Params, x: str, shape: str) -> str:
    """One extent of the shape may be -1; it is inferred."""
    target = emitter.whole(shape)
    known = emitter.known(target)
    if known is not None:
        return emitter.reshape(x, known.tolist())
    return emitter.node("Reshape", x, target)


@op("rangeDynamic")
def range_dynamic(emitter: Emitter, params: Params, end: str, *others: str) -> str:
    """Parameters replace missing inputs; counted in float32."""
    start, step = (
        emitter.reshape(others[index], []) if index < len(others) else emitter.number(value)
        for index, value in enumerate((params.startValue, params.stepSizeValue))
    )
    span = emitter.node("Sub", emitter.reshape(end, []), start)
    count = emitter.node("Cast", emitter.node("Ceil", emitter.node("Div", span, step)), to=INT64)
    if len(others) > 1:  # with a step of 0 this reads past the end of the vector, an error
        still = emitter.node("Cast", emitter.node("Equal", step, emitter.number(0)), to=INT64)
        count = emitter.node("Add", count, emitter.node("Gather", emitter.integers([0]), still))
    count = emitter.node("Max", count, emitter.constant(np.int64(0)))
    places = emitter.positions(count)
    return emitter.binary("add", emitter.binary("mul", places, step), start)
