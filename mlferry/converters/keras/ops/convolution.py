"""Convolutions in one to three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import (
    Windows,
    channels_first,
    convolved,
    same_pairs,
    transposed,
)
from mlferry.converters.frontend import C
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import OPS, choice, count, sizes, spatial, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.windows import spans_of

Pair = tuple[int, int]
Spatial = tuple[int, ...]


def spatial_op(*names: str, dimensions: Sequence[int] = (1, 2, 3)) -> Callable[[C], C]:
    """Register a converter of channels-first data; ``Conv{}D`` stands for Conv1D and so on."""

    def decorate(convert: C) -> C:
        for axes in dimensions:
            layers = (name.format(axes) for name in names)
            OPS.register(*layers, layouts=spatial, rank=axes + 2)(convert)
        return convert

    return decorate


def dimensions_of(node: Node) -> int:
    """1, 2 or 3, as the name of the layer says."""
    return next(int(letter) for letter in node.op if letter.isdigit())


def check_rank(x: Blob, dimensions: int) -> None:
    """Raise a `ConversionError` if an input has other axes than batch, channels and these."""
    if x.rank != dimensions + 2:
        raise ConversionError(f"an input of rank {x.rank}; this layer takes {dimensions + 2}")


def as_image(context: Lowering, x: Blob, dimensions: int) -> Blob:
    """[N, C, T] as [N, C, 1, T]; images stay."""
    check_rank(x, dimensions)
    return context.expand(x, 2) if dimensions == 1 else x


def from_image(context: Lowering, x: Blob, dimensions: int) -> Blob:
    """Undo `as_image`."""
    return context.squeeze(x, 2) if dimensions == 1 else x


def windows_of(
    node: Node, x: Blob, kernel: Spatial, strides: Spatial, dilations: Spatial, groups: int = 1
) -> Windows:
    """How a kernel moves over [N, C, *spatial], with "valid", "same" or "causal" padding."""
    axes = len(kernel)
    check_rank(x, axes)
    allowed = ("valid", "same", "causal") if axes == 1 else ("valid", "same")
    mode = choice(node, "padding", allowed, "valid")
    if mode == "same" and axes == 3:
        pairs = same_pairs(x, spans_of(kernel, dilations), strides)
        return Windows(strides, dilations, pairs, groups)
    before = (kernel[0] - 1) * dilations[0] if mode == "causal" else 0
    same = "BOTTOM_RIGHT_HEAVY" if mode == "same" else ""
    return Windows(strides, dilations, [(before, 0)] * axes, groups, same)


def _bias(node: Node, channels: int) -> NDArray[np.float32] | None:
    return weight(node, "bias", channels) if node.attrs.get("use_bias", True) else None


def _window(node: Node) -> tuple[Spatial, Spatial, Spatial]:
    """The size of the kernel, its strides and its dilations."""
    axes = dimensions_of(node)
    return (
        sizes(node.attrs["kernel_size"], axes, "kernel_size"),
        sizes(node.attrs.get("strides", 1), axes, "strides"),
        sizes(node.attrs.get("dilation_rate", 1), axes, "dilation_rate"),
    )


def _channels(node: Node, x: Blob, kernel: str = "kernel", *, axis: int = -2) -> int:
    """The input's channels, from its shape, or from the kernel if a custom layer hides that."""
    return x.known[1] or node.weight(kernel).shape[axis]


@spatial_op("Conv{}D")
def convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    kernel_size, strides, dilations = _window(node)
    filters, groups = count(node, "filters"), node.attrs.get("groups", 1)
    windows = windows_of(node, x, kernel_size, strides, dilations, groups)
    channels = node.weight("kernel").shape[-2] if x.known[1] is None else x.known[1] // groups
    kernel = channels_first(weight(node, "kernel", *kernel_size, channels, filters))
    return convolved(context, x, kernel, windows, bias=_bias(node, filters), layout=x.layout)


def _depthwise(context: Lowering, node: Node, x: Blob, name: str) -> Blob:
    kernel_size, strides, dilations = _window(node)
    windows = windows_of(node, x, kernel_size, strides, dilations)
    channels, multiplier = _channels(node, x, name), node.attrs.get("depth_multiplier", 1)
    kernel = weight(node, name, *kernel_size, channels, multiplier)
    kernel = np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(-1, 1, *kernel_size)
    bias = _bias(node, channels * multiplier) if name == "kernel" else None
    windows = replace(windows, groups=channels)
    return convolved(context, x, kernel, windows, bias=bias, layout=x.layout)


@spatial_op("DepthwiseConv{}D", dimensions=(1, 2))
def depthwise_convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    return _depthwise(context, node, x, "kernel")


@spatial_op("SeparableConv{}D", dimensions=(1, 2))
def separable_convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    y = _depthwise(context, node, x, "depthwise_kernel")
    filters, channels = count(node, "filters"), _channels(node, y, "pointwise_kernel")
    ones = (1,) * dimensions_of(node)
    kernel = channels_first(weight(node, "pointwise_kernel", *ones, channels, filters))
    windows = Windows(ones, ones, [(0, 0)] * len(ones))
    return convolved(context, y, kernel, windows, bias=_bias(node, filters), layout=x.layout)


@spatial_op("Conv{}DTranspose")
def transposed_convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    """`cuts` says how much is cut off. Output beyond the full result is only bias."""
    kernel_size, strides, dilations = _window(node)
    axes = len(kernel_size)
    check_rank(x, axes)
    mode = choice(node, "padding", ("valid", "same"), "valid")
    option = node.attrs.get("output_padding")
    extra = [None] * axes if option is None else sizes(option, axes, "output_padding")
    filters, groups = count(node, "filters"), node.attrs.get("groups", 1)
    if groups != 1:
        raise ConversionError(f"groups={groups}: transposed convolution without groups only")
    kernel = weight(node, "kernel", *kernel_size, filters, _channels(node, x, axis=-1))
    rows = zip(kernel_size, strides, dilations, extra, strict=True)
    windows = Windows(strides, dilations, [cuts(mode, *row) for row in rows])
    bias = _bias(node, filters)
    return transposed(context, x, channels_first(kernel), windows, bias=bias, layout=x.layout)


def cuts(mode: str, kernel: int, stride: int, dilation: int, extra: int | None) -> Pair:
    """How much Keras cuts off before and after; a negative amount is appended.

    A transposed convolution is the gradient of a convolution with the same padding, whose
    input has the size that Keras computes for the output here.
    """
    span = (kernel - 1) * dilation + 1
    if extra is None:
        size = 0 if mode == "same" else max(span - stride, 0)  # beyond size * stride
    else:
        pad = span // 2 if mode == "same" else 0
        size = span - stride - 2 * pad + extra
    whole = span - stride  # the full extent beyond size * stride
    if mode == "same":
        before = max(whole - size, 0) // 2
        return before, whole - size - before
    return 0, whole - size
