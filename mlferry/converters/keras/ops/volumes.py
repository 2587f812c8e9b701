"""Padding and the like in three dimensions, and pooling to a size."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.pooling import kind_of
from mlferry.converters.keras.ops.registry import op, sizes, spatial
from mlferry.converters.keras.ops.reshaping import amounts
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.slices import padded, sliced
from mlferry.converters.values import SOURCE, Blob

_REDUCTIONS = {"MAX": "reduceMax", "AVERAGE": "reduceMean"}


@op("GlobalMaxPooling3D", "GlobalAveragePooling3D", layouts=spatial, rank=5)
def global_pooling3d(context: Lowering, node: Node, x: Blob) -> Blob:
    keep = bool(node.attrs.get("keepdims", False))
    layout = x.layout if keep else SOURCE
    return context.layer(
        _REDUCTIONS[kind_of(node)], x, layout=layout, axes=(2, 3, 4), keepDims=keep
    )


@op("ZeroPadding3D", layouts=spatial, rank=5)
def zero_padding3d(context: Lowering, node: Node, x: Blob) -> Blob:
    pairs = amounts(node, "padding", 1)
    around = [0, 0, *(a for a, _ in pairs), 0, 0, *(b for _, b in pairs)]
    return context.relabel(padded(context, x, around, "constant", 0.0), x.layout)


@op("Cropping3D", layouts=spatial, rank=5)
def cropping3d(context: Lowering, node: Node, x: Blob) -> Blob:
    pairs = amounts(node, "cropping", 1)
    starts, ends = [a for a, _ in pairs], [-b if b else None for _, b in pairs]
    return context.relabel(sliced(context, x, starts, ends, (2, 3, 4), None), x.layout)


@op("UpSampling3D", layouts=spatial, rank=5)
def up_sampling3d(context: Lowering, node: Node, x: Blob) -> Blob:
    """Repeat every entry, by gathering along each axis."""
    for axis, factor in enumerate(sizes(node.attrs.get("size", 2), 3, "size"), start=2):
        if factor != 1:
            places = context.constant(np.repeat(np.arange(extent(x, axis)), factor), layout=SOURCE)
            x = context.layer("gather", x, places, layout=x.layout, axis=axis)
    return x


# ---- pooling to a size -----------------------------------------------------------------


_ADAPTIVE = [f"Adaptive{kind}Pooling{count}D" for kind in ("Average", "Max") for count in (1, 2, 3)]


@op(*_ADAPTIVE, layouts=spatial)
def adaptive_pooling(context: Lowering, node: Node, x: Blob) -> Blob:
    """Output i of an axis covers the entries from floor(i n / m) to ceil((i + 1) n / m)."""
    kind = _REDUCTIONS[kind_of(node)]
    targets = sizes(node.attrs["output_size"], x.rank - 2, "output_size")
    for axis, target in enumerate(targets, start=2):
        size = extent(x, axis)
        parts = []
        for index in range(target):
            start, end = index * size // target, -(-(index + 1) * size // target)
            part = sliced(context, x, [start], [end], [axis], None)
            parts.append(context.layer(kind, part, layout=x.layout, axes=(axis,), keepDims=True))
        if len(parts) == 1:
            x = parts[0]
        else:
            x = context.layer("concatND", *parts, layout=x.layout, axis=axis)
    return x
