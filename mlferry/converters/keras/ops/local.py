"""Locally connected layers of Keras 1 and 2, which have a kernel for every place."""

from __future__ import annotations

from itertools import product

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.convolution import dimensions_of
from mlferry.converters.keras.ops.registry import choice, op, sizes, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import channels_first, channels_last, extent
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError


@op("LocallyConnected1D", "LocallyConnected2D", layouts=(SOURCE,))
def locally_connected(context: Lowering, node: Node, x: Blob) -> Blob:
    """The values under each place of the kernel, gathered, times the weights of that place."""
    attrs, dimensions = node.attrs, dimensions_of(node)
    choice(node, "padding", ("valid",), "valid")
    if attrs.get("implementation", 1) != 1:
        raise ConversionError(
            f"implementation={attrs['implementation']!r}: 1 can be converted. Set it to 1 in the "
            "model, give it the same weights, and save it again"
        )
    first = attrs.get("data_format") == "channels_first"
    if first:
        x = channels_last(context, x)
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
    patches = context.gather(flat, index, 1)
    rows = context.reshape(patches, (batch, places, count), layout=SOURCE)
    by_place = context.transpose(rows, (1, 0, 2))
    output = context.matmul(by_place, context.constant(kernels, layout=SOURCE))
    shaped = context.transpose(output, (1, 0, 2))
    shaped = context.reshape(shaped, (batch, *counts, filters), layout=SOURCE)
    if attrs.get("use_bias", True):
        bias = weight(node, "bias", *counts, filters)
        shaped = context.add(shaped, context.constant(bias, layout=SOURCE))
    return channels_first(context, shaped) if first else shaped
