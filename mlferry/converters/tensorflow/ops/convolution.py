"""Convolutions, transposed and depthwise ones too, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.convolutions import (
    Windows,
    channels_first,
    convolved,
    convolved_by,
    same_pairs,
    transposed,
)
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of, extent, known
from mlferry.converters.slices import sliced
from mlferry.converters.tensorflow.ops.quantization import stored
from mlferry.converters.tensorflow.ops.registry import is_channels_first, maps, op, spatial
from mlferry.converters.values import SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.numerics.windows import same_edges, spans_of

_SAME = "BOTTOM_RIGHT_HEAVY"
Pairs = list[tuple[int, int]]


def windows(
    node: Node,
    x: Blob,
    kernel: Sequence[int],
    strides: list[int],
    dilations: list[int],
    groups: int = 1,
) -> Windows:
    """How a kernel moves over channels-first data, by the node's `padding`."""
    mode = node.attrs.get("padding", "VALID")
    explicit = node.attrs.get("explicit_paddings") or []
    none: Pairs = [(0, 0)] * len(kernel)
    if mode == "EXPLICIT":
        pairs = list(zip(explicit[::2], explicit[1::2], strict=True))
        return Windows(strides, dilations, spatial(node, pairs), groups)
    if mode == "SAME" and len(kernel) == 2:
        return Windows(strides, dilations, none, groups, _SAME)
    if mode == "SAME":
        return Windows(strides, dilations, same_pads(x, kernel, strides, dilations), groups)
    return Windows(strides, dilations, none, groups)


def same_pads(
    x: Blob, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pairs:
    """SAME padding of the last axes: an odd entry goes to the end."""
    return same_pairs(x, spans_of(kernel, dilations), strides)


def _steps(node: Node) -> tuple[list[int], list[int]]:
    """Strides and dilations of the axes between batch and channels."""
    node.attrs.get("data_format")
    strides = spatial(node, node.attrs["strides"])
    dilations = node.attrs.get("dilations")
    if dilations is None:
        return strides, [1] * len(strides)
    results = list(dilations) if len(dilations) == len(strides) else spatial(node, dilations)
    return strides, results


@op("Conv2D", "Conv3D", raw=True)
def conv(context: Lowering, node: Node, x: Operand, weights: Operand) -> Blob:
    blob = maps(context, node, x)
    if not isinstance(weights, Constant):
        return _by_computed(context, node, blob, context.source_order(weights))
    kernels = channels_first(weights.floats)
    strides, dilations = _steps(node)
    groups = (blob.known[1] or kernels.shape[1]) // kernels.shape[1]
    window = windows(node, blob, kernels.shape[2:], strides, dilations, groups)
    codes = stored(weights, channels_first, 0)
    return convolved(context, blob, kernels, window, stored=codes, layout=blob.layout)


def _by_computed(context: Lowering, node: Node, x: Blob, kernel: Blob) -> Blob:
    """With a computed kernel, [height, width, inputs, outputs]."""
    if node.op == "Conv3D":
        raise ConversionError("a kernel that is computed: Core ML takes one in two dimensions")
    ordered = context.transpose(kernel, (3, 2, 0, 1))
    return _with_weights(context, node, x, ordered)


def _with_weights(context: Lowering, node: Node, x: Blob, weights: Blob) -> Blob:
    """Core ML takes the weights as a second input, [outputs, inputs / groups, height, width]."""
    strides, dilations = _steps(node)
    weights = _dilated(context, weights, dilations)
    _, inputs, *kernel = known(weights)
    groups = extent(x, 1) // inputs
    window = windows(node, x, kernel, strides, [1] * len(kernel), groups)
    return convolved_by(context, x, weights, window, layout=x.layout)


def _dilated(context: Lowering, weights: Blob, dilations: Sequence[int]) -> Blob:
    """A kernel with zeros in between, as Core ML does not dilate one that is an input."""
    if max(dilations) == 1:
        return weights
    outputs, inputs, height, width = known(weights)
    down, across = dilations
    apart = context.reshape(weights, (outputs * inputs, height, 1, width, 1), layout=SOURCE)
    amounts = (0, 0, 0, 0, 0, down - 1, 0, 0, 0, across - 1)
    wide = context.layer("constantPad", apart, layout=SOURCE, padAmounts=amounts, value=0.0)
    whole = context.reshape(wide, (outputs, inputs, height * down, width * across), layout=SOURCE)
    ends = [(height - 1) * down + 1, (width - 1) * across + 1]
    return sliced(context, whole, [0, 0], ends, [2, 3], None)


@op("DepthwiseConv2dNative", raw=True)
def depthwise(context: Lowering, node: Node, x: Operand, weights: Operand) -> Blob:
    """A kernel [h, w, C, multiplier] has one group per channel."""
    blob = maps(context, node, x)
    if not isinstance(weights, Constant):
        height, width, channels, multiplier = known(weights)
        rows = context.transpose(context.source_order(weights), (2, 3, 0, 1))
        shape = (channels * multiplier, 1, height, width)
        return _with_weights(context, node, blob, context.reshape(rows, shape, layout=SOURCE))
    array = array_of(node, 1, weights)

    def turned(kernel: Array) -> Array:
        rows: Array = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
        return rows

    kernels = np.ascontiguousarray(turned(array).astype(np.float32))
    strides, dilations = _steps(node)
    window = windows(node, blob, kernels.shape[2:], strides, dilations, array.shape[2])
    remaining = stored(weights, turned, 0) if array.shape[3] == 1 else None
    return convolved(context, blob, kernels, window, stored=remaining, layout=blob.layout)


@op("Conv2DBackpropInput", "Conv3DBackpropInputV2", raw=True)
def transposed_conv(
    context: Lowering, node: Node, sizes: Operand, weights: Operand, x: Operand
) -> Blob:
    """The gradient of a convolution; padding cuts the full result to the given size."""
    blob = maps(context, node, x)
    kernels = channels_first(array_of(node, 1, weights)).astype(np.float32)
    strides, dilations = _steps(node)
    target = spatial(node, _target(node, sizes))
    mode = node.attrs.get("padding", "VALID")
    explicit = node.attrs.get("explicit_paddings") or []
    pads = spatial(node, list(zip(explicit[::2], explicit[1::2], strict=True))) if explicit else []
    cuts = []
    for axis, (k, s, d) in enumerate(zip(kernels.shape[2:], strides, dilations, strict=True)):
        span = (k - 1) * d + 1
        if target[axis] is None:  # of a flexible input: what SAME and VALID make of it
            whole = span - s if mode == "SAME" else min(span - s, 0)
            cuts.append((max(0, whole) // 2, whole - max(0, whole) // 2))
            continue
        size = target[axis]
        full = (extent(blob, axis + 2) - 1) * s + span
        before = 0
        if mode == "SAME":
            before = same_edges(size, span, s)[0]
        elif mode == "EXPLICIT":
            before = pads[axis][0]
        cuts.append((before, full - before - size))
    window = Windows(strides, dilations, cuts)
    return transposed(
        context,
        blob,
        kernels,
        window,
        stored=stored(weights, channels_first, 1),
        layout=blob.layout,
    )


def _target(node: Node, sizes: Operand) -> list[int | None]:
    """The shape of the result, or of its spatial axes if these depend on flexible ones."""
    if isinstance(sizes, Constant):
        results = [int(n) for n in sizes.array.ravel()]
        if len(results) == len(node.attrs["strides"]) - 2:
            return [0, *results, 0] if not is_channels_first(node) else [0, 0, *results]
        return list(results)
    shape = node.outputs[0].shape
    if shape is None:
        raise ConversionError("the size of the result is computed: give fixed shapes")
    return list(shape)
