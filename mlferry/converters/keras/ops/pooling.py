"""Pooling."""

from __future__ import annotations

from mlferry.converters.convolutions import pooled
from mlferry.converters.graph import Node
from mlferry.converters.keras import masks
from mlferry.converters.keras.ops.convolution import dimensions_of, spatial_op, windows_of
from mlferry.converters.keras.ops.registry import op, sizes, spatial
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, Accepted, Blob


def kind_of(node: Node) -> str:
    """Core ML's name of a pooling, as the name of the layer says."""
    return "MAX" if "Max" in node.op else "AVERAGE"


@spatial_op("MaxPooling{}D", "AveragePooling{}D")
def pooling(context: Lowering, node: Node, x: Blob) -> Blob:
    """Keras averages over values inside the input, not over padding."""
    count, kind = dimensions_of(node), kind_of(node)
    kernel = sizes(node.attrs.get("pool_size", 2), count, "pool_size")
    option = node.attrs.get("strides")
    strides = kernel if option is None else sizes(option, count, "strides")
    windows = windows_of(node, x, kernel, strides, (1,) * count)
    is_average = kind == "AVERAGE"
    return pooled(context, x, kind, kernel, windows, excludes=is_average, layout=x.layout)


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
