"""Pooling in one and two dimensions."""

from __future__ import annotations

from mlferry.converters.graph import Node
from mlferry.converters.keras import masks
from mlferry.converters.keras.ops.convolution import (
    as_image,
    dimensions_of,
    from_image,
    padding,
    pair,
)
from mlferry.converters.keras.ops.registry import op, spatial
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, Accepted, Blob


def kind_of(node: Node) -> str:
    """Core ML's name of a pooling, as the name of the layer says."""
    return "MAX" if "Max" in node.op else "AVERAGE"


@op("MaxPooling1D", "AveragePooling1D", layouts=spatial, rank=3)
@op("MaxPooling2D", "AveragePooling2D", layouts=spatial, rank=4)
def pooling(context: Lowering, node: Node, x: Blob) -> Blob:
    """Keras averages over values inside the input, not over padding."""
    dimensions, kind = dimensions_of(node), kind_of(node)
    x = as_image(context, x, dimensions)
    default = 2 if dimensions == 1 else (2, 2)
    size = pair(node.attrs.get("pool_size", default), dimensions, "pool_size")
    option = node.attrs.get("strides")
    stride = size if option is None else pair(option, dimensions, "strides")
    y = context.layer(
        "pooling",
        x,
        type=kind,
        kernelSize=size,
        stride=stride,
        avgPoolExcludePadding=kind == "AVERAGE",
        **padding(node, dimensions, size, stride, (1, 1)),
    )
    return from_image(context, y, dimensions)


def _steps_first(node: Node) -> Accepted:
    """One-dimensional data is reduced in its own layout."""
    return spatial(node) if node.attrs.get("data_format") == "channels_first" else (SOURCE,)


def _global_1d(context: Lowering, node: Node, x: Blob, kind: str) -> Blob:
    first = node.attrs.get("data_format") == "channels_first"
    axis = 2 if first else 1
    return context.layer(kind, x, axes=(axis,), keepDims=bool(node.attrs.get("keepdims", False)))


@op("GlobalMaxPooling1D", layouts=_steps_first, rank=3)
def global_max_pooling1d(context: Lowering, node: Node, x: Blob) -> Blob:
    return _global_1d(context, node, x, "reduceMax")


@op("GlobalAveragePooling1D", layouts=_steps_first, rank=3)
def global_average_pooling1d(context: Lowering, node: Node, x: Blob) -> Blob:
    """Averages over the steps that count."""
    (result, *_) = masks.of(context, node)
    if result is None:
        return _global_1d(context, node, x, "reduceMean")
    first = node.attrs.get("data_format") == "channels_first"
    wide = context.expand(result, 1 if first else 2)
    output = context.layer("multiplyBroadcastable", x, wide)
    return context.layer(
        "divideBroadcastable",
        _global_1d(context, node, output, "reduceSum"),
        _global_1d(context, node, wide, "reduceSum"),
    )


@op("GlobalMaxPooling2D", "GlobalAveragePooling2D", layouts=spatial, rank=4)
def global_pooling2d(context: Lowering, node: Node, x: Blob) -> Blob:
    y = context.layer("pooling", x, type=kind_of(node), globalPooling=True, valid={})
    return y if node.attrs.get("keepdims", False) else context.squeeze(y, -2, -1)
