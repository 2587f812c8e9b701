"""Pooling."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from mlferry.converters.convolutions import pooled
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of, ints, joined, known
from mlferry.converters.slices import shifted
from mlferry.converters.tensorflow.ops.convolution import Pairs, same_pads, windows
from mlferry.converters.tensorflow.ops.registry import joint, maps, op, spatial
from mlferry.converters.values import SOURCE, Blob, Operand
from mlferry.errors import ConversionError

_LOWEST = float(np.finfo(np.float32).min)
_KINDS = {"MaxPool": "MAX", "AvgPool": "AVERAGE", "MaxPool3D": "MAX", "AvgPool3D": "AVERAGE"}


def _pool(
    context: Lowering,
    node: Node,
    x: Operand,
    kind: str,
    sizes: Sequence[int],
    strides: Sequence[int],
) -> Blob:
    """Averages do not count the padding."""
    blob = maps(context, node, x)
    for name, values in (("ksize", sizes), ("strides", strides)):
        outer = [n for n in values if n != 1]
        inner = [n for n in spatial(node, values) if n != 1]
        if outer != inner:
            raise ConversionError(f"{name}={list(values)}: windows over batch or channels")
    kernel, steps = spatial(node, sizes), spatial(node, strides)
    window = windows(node, blob, kernel, steps, [1] * len(kernel))
    is_average = kind == "AVERAGE"
    return pooled(context, blob, kind, kernel, window, excludes=is_average, layout=blob.layout)


@op(*_KINDS, raw=True)
def pool(context: Lowering, node: Node, x: Operand) -> Blob:
    sizes, strides = node.attrs["ksize"], node.attrs["strides"]
    return _pool(context, node, x, _KINDS[node.op], sizes, strides)


@op("MaxPoolV2", raw=True)
def pool_v2(context: Lowering, node: Node, x: Operand, sizes: Operand, strides: Operand) -> Blob:
    options = (ints(array_of(node, place, v)) for place, v in ((1, sizes), (2, strides)))
    return _pool(context, node, x, "MAX", *options)


@op("MaxPoolWithArgmax", raw=True)
def pool_with_places(context: Lowering, node: Node, x: Operand) -> list[Blob]:
    """The largest values, and the index of the first of each in the flattened image."""
    sizes, strides = (list(node.attrs[n][1:3]) for n in ("ksize", "strides"))
    most = _pool(context, node, x, "MAX", node.attrs["ksize"], node.attrs["strides"])
    blob = maps(context, node, x)
    batch, channels, height, width = known(blob)
    views, pads = _views(context, node, blob, sizes, strides, [1, 1])
    wide = [context.expand(view, 0) for view in views]
    best = context.layer(
        "argMax", joined(context, wide, 0), layout=blob.layout, axis=0, removeDim=True
    )
    inner = [(i * width + j) * channels for i, j in np.ndindex(*sizes)]
    moved = context.gather(context.constant(inner), context.reshape(best, (-1,), layout=SOURCE), 0)
    shape = known(best)
    rows, columns = (
        np.arange(n) * step - before
        for n, step, (before, _) in zip(shape[2:], strides, pads, strict=True)
    )
    first = (rows[:, None] * width + columns) * channels + np.arange(channels)[:, None, None]
    outer = np.arange(batch) * (height * width * channels)
    if not node.attrs.get("include_batch_in_index", False):
        outer = outer * 0
    start = context.constant(outer[:, None, None, None] + first, layout=blob.layout)
    places = context.reshape(moved, shape, layout=blob.layout)
    return [most, joint(context, "addBroadcastable", places, start)]


def _views(
    context: Lowering,
    node: Node,
    x: Blob,
    kernel: Sequence[int],
    strides: list[int],
    rates: list[int],
) -> tuple[list[Blob], Pairs]:
    """A slice of channels-first data for each entry of a window, and the padding of both axes.

    The padding is the lowest number, so that it never is the maximum.
    """
    window = windows(node, x, kernel, strides, rates)
    pairs = same_pads(x, kernel, strides, rates) if window.same else list(window.pairs)
    return shifted(context, x, kernel, strides, rates, pairs, _LOWEST), pairs


@op("Dilation2D", raw=True)
def dilation(context: Lowering, node: Node, x: Operand, kernel: Operand) -> Blob:
    """The maximum of a window plus the kernel [height, width, channels]."""
    array = array_of(node, 1, kernel).astype(np.float32)
    strides, rates = (list(node.attrs[n][1:3]) for n in ("strides", "rates"))
    views, _ = _views(context, node, maps(context, node, x), array.shape[:2], strides, rates)
    sums = [
        joint(
            context,
            "addBroadcastable",
            view,
            context.constant(row[None, :, None, None], layout=view.layout),
        )
        for view, row in zip(views, array.reshape(-1, array.shape[2]), strict=True)
    ]
    return functools.reduce(lambda a, b: joint(context, "maxBroadcastable", a, b), sums)
