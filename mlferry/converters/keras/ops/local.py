"""Locally connected layers of Keras 1 and 2, which have a kernel for every place."""

from __future__ import annotations

from itertools import product

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import choice, op, sizes, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError


def _connected(context: Lowering, node: Node, x: Blob, dimensions: int) -> Blob:
    """The values under each place of the kernel, gathered, times the weights of that place."""
    attrs = node.attrs
    choice(node, "padding", ("valid",), "valid")
    if attrs.get("implementation", 1) != 1:
        raise ConversionError(
            f"implementation={attrs['implementation']!r}: 1 can be converted. Set it to 1 in the "
            "model, give it the same weights, and save it again"
        )
    first = attrs.get("data_format") == "channels_first"
    if first:
        x = context.layer("transpose", x, layout=SOURCE, axes=(0, *range(2, x.rank), 1))
    *space, channels = (extent(x, axis) for axis in range(1, x.rank))
    kernel = sizes(attrs["kernel_size"], dimensions, "kernel_size")
    strides = sizes(attrs.get("strides", 1), dimensions, "strides")
    counts = [(n - k) // s + 1 for n, k, s in zip(space, kernel, strides, strict=True)]
    filters, places = int(attrs["filters"]), int(np.prod(counts))
    numbers = np.arange(int(np.prod(space))).reshape(space)
    windows = [
        numbers[tuple(slice(i * s, i * s + k) for i, s, k in zip(at, strides, kernel, strict=True))]
        for at in product(*map(range, counts))
    ]
    count = int(np.prod(kernel)) * channels
    kernels = weight(node, "kernel", places, count, filters)
    if first:  # the weights of a channel are contiguous
        kernels = kernels.reshape(places, channels, -1, filters).transpose(0, 2, 1, 3)
        kernels = kernels.reshape(places, count, filters)
    batch = x.known[0]
    flat = context.reshape(x, (batch, numbers.size, channels), layout=SOURCE)
    index = context.constant(np.stack(windows).ravel().astype(np.float32), layout=SOURCE)
    patches = context.layer("gather", flat, index, layout=SOURCE, axis=1)
    rows = context.reshape(patches, (batch, places, count), layout=SOURCE)
    by_place = context.layer("transpose", rows, layout=SOURCE, axes=(1, 0, 2))
    output = context.layer(
        "batchedMatmul", by_place, context.constant(kernels, layout=SOURCE), layout=SOURCE
    )
    shaped = context.layer("transpose", output, layout=SOURCE, axes=(1, 0, 2))
    shaped = context.reshape(shaped, (batch, *counts, filters), layout=SOURCE)
    if attrs.get("use_bias", True):
        bias = weight(node, "bias", *counts, filters)
        shaped = context.layer(
            "addBroadcastable", shaped, context.constant(bias, layout=SOURCE), layout=SOURCE
        )
    if first:
        axes = (0, shaped.rank - 1, *range(1, shaped.rank - 1))
        shaped = context.layer("transpose", shaped, layout=SOURCE, axes=axes)
    return shaped


@op("LocallyConnected1D", layouts=(SOURCE,))
def locally_connected1d(context: Lowering, node: Node, x: Blob) -> Blob:
    return _connected(context, node, x, 1)


@op("LocallyConnected2D", layouts=(SOURCE,))
def locally_connected2d(context: Lowering, node: Node, x: Blob) -> Blob:
    return _connected(context, node, x, 2)
