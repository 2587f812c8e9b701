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


def target(emitter: Emitter, params: Params, field: str, *given: str) -> str:
    """The shape that the kind's name says: that of an input, a stored one, or one of an input."""
    if not given:
        return emitter.integers(getattr(params, field))
    shape = emitter.shape_vector if params.kind.endswith("Like") else emitter.whole
    return shape(given[0])


@op("fillLike", "fillStatic", "fillDynamic")
def fill(emitter: Emitter, params: Params, *given: str) -> str:
    return filled(emitter, params.value, target(emitter, params, "targetShape", *given))


@op("broadcastToLike", "broadcastToStatic", "broadcastToDynamic")
def broadcast_to(emitter: Emitter, params: Params, x: str, *given: str) -> str:
    """To a shape, one way only: a blob that has more values than it is an error."""
    shape = target(emitter, params, "targetShape", *given)
    y = emitter.node("Expand", x, shape)
    return y if emitter.known(shape) is not None else emitter.node("Reshape", y, shape)


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
