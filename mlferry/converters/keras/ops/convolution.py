"""Convolutions in one and two dimensions.

One-dimensional data gets a height of 1 on the way: [N, C, T] to [N, C, 1, T].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import dilated_kernel
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import choice, op, sizes, spatial, weight
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.windows import same_edges

Pair = tuple[int, int]


def dimensions_of(node: Node) -> int:
    """1 or 2, as the name of the layer says."""
    return 1 if "1D" in node.op else 2


def as_image(context: Lowering, x: Blob, dimensions: int) -> Blob:
    """[N, C, T] as [N, C, 1, T]; images stay."""
    if x.rank != dimensions + 2:
        raise ConversionError(f"an input of rank {x.rank}; this layer takes {dimensions + 2}")
    return context.expand(x, -2) if dimensions == 1 else x


def from_image(context: Lowering, x: Blob, dimensions: int) -> Blob:
    """Undo `as_image`."""
    return context.squeeze(x, -2) if dimensions == 1 else x


def pair(value: int | Sequence[int], dimensions: int, option: str, fill: int = 1) -> Pair:
    """An option of one or two dimensions as (height, width)."""
    result = sizes(value, dimensions, option)
    return (fill, result[0]) if dimensions == 1 else (result[0], result[1])


def padding(
    node: Node, dimensions: int, kernel: Pair, stride: Pair, dilation: Pair
) -> dict[str, Any]:
    """Core ML's padding for "valid", "same" or "causal" in Keras."""
    allowed = ("valid", "same", "causal") if dimensions == 1 else ("valid", "same")
    mode = choice(node, "padding", allowed, "valid")
    if mode == "same":
        return {"same": {"asymmetryMode": "BOTTOM_RIGHT_HEAVY"}}
    left = (kernel[1] - 1) * dilation[1] if mode == "causal" else 0
    return {"valid": edges((0, 0), (left, 0))}


def same_pairs(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """The padding of "same" before and after each axis."""
    axes = zip(sizes, kernel, strides, dilations, strict=True)
    return [same_edges(size, (k - 1) * d + 1, s) for size, k, s, d in axes]


def edges(height: Pair, width: Pair, field: str = "paddingAmounts") -> dict[str, Any]:
    """A message with border amounts for height and width."""
    amounts = [{"startEdgeSize": start, "endEdgeSize": end} for start, end in (height, width)]
    return {field: {"borderAmounts": amounts}}


def _square(kernel: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """A kernel with a height."""
    return kernel[None] if dimensions == 1 else kernel


def _bias(node: Node, channels: int) -> dict[str, Any]:
    if not node.attrs.get("use_bias", True):
        return {}
    return {"hasBias": True, "bias": weight(node, "bias", channels)}


def _window(node: Node, dimensions: int) -> tuple[Pair, Pair, Pair]:
    """The size of the kernel, its strides and its dilations."""
    return (
        pair(node.attrs["kernel_size"], dimensions, "kernel_size"),
        pair(node.attrs.get("strides", 1), dimensions, "strides"),
        pair(node.attrs.get("dilation_rate", 1), dimensions, "dilation_rate"),
    )


def _channels(node: Node, x: Blob, kernel: str = "kernel", *, axis: int = -2) -> int:
    """The input's channels, from its shape, or from the kernel if a custom layer hides that."""
    return x.known[1] or node.weight(kernel).shape[axis]


@op("Conv1D", layouts=spatial, rank=3)
@op("Conv2D", layouts=spatial, rank=4)
def convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    dimensions = dimensions_of(node)
    x = as_image(context, x, dimensions)
    attrs = node.attrs
    kernel_size, stride, dilation = _window(node, dimensions)
    filters, groups = attrs["filters"], attrs.get("groups", 1)
    spans = kernel_size[-dimensions:]
    channels = node.weight("kernel").shape[-2] if x.known[1] is None else x.known[1] // groups
    kernel = weight(node, "kernel", *spans, channels, filters)
    y = context.layer(
        "convolution",
        x,
        outputChannels=filters,
        kernelChannels=channels,
        nGroups=groups,
        kernelSize=kernel_size,
        stride=stride,
        dilationFactor=dilation,
        weights=_square(kernel, dimensions).transpose(3, 2, 0, 1),
        **_bias(node, filters),
        **padding(node, dimensions, kernel_size, stride, dilation),
    )
    return from_image(context, y, dimensions)


def _depthwise(
    context: Lowering,
    node: Node,
    x: Blob,
    dimensions: int,
    kernel_name: str,
    bias: Mapping[str, Any],
) -> Blob:
    attrs = node.attrs
    kernel_size, stride, dilation = _window(node, dimensions)
    channels, multiplier = _channels(node, x, kernel_name), attrs.get("depth_multiplier", 1)
    spans = kernel_size[-dimensions:]
    kernel = _square(weight(node, kernel_name, *spans, channels, multiplier), dimensions)
    return context.layer(
        "convolution",
        x,
        outputChannels=channels * multiplier,
        kernelChannels=1,
        nGroups=channels,
        kernelSize=kernel_size,
        stride=stride,
        dilationFactor=dilation,
        weights=kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel_size),
        **bias,
        **padding(node, dimensions, kernel_size, stride, dilation),
    )


@op("DepthwiseConv1D", layouts=spatial, rank=3)
@op("DepthwiseConv2D", layouts=spatial, rank=4)
def depthwise_convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    dimensions = dimensions_of(node)
    x = as_image(context, x, dimensions)
    bias = _bias(node, _channels(node, x) * node.attrs.get("depth_multiplier", 1))
    return from_image(context, _depthwise(context, node, x, dimensions, "kernel", bias), dimensions)


@op("SeparableConv1D", layouts=spatial, rank=3)
@op("SeparableConv2D", layouts=spatial, rank=4)
def separable_convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    dimensions = dimensions_of(node)
    x = as_image(context, x, dimensions)
    y = _depthwise(context, node, x, dimensions, "depthwise_kernel", {})
    filters, channels = node.attrs["filters"], _channels(node, y, "pointwise_kernel")
    kernel = weight(node, "pointwise_kernel", *(1,) * dimensions, channels, filters)
    z = context.layer(
        "convolution",
        y,
        outputChannels=filters,
        kernelChannels=channels,
        nGroups=1,
        kernelSize=(1, 1),
        stride=(1, 1),
        weights=_square(kernel, dimensions).transpose(3, 2, 0, 1),
        valid={},
        **_bias(node, filters),
    )
    return from_image(context, z, dimensions)


@op("Conv1DTranspose", layouts=spatial, rank=3)
@op("Conv2DTranspose", layouts=spatial, rank=4)
def transposed_convolution(context: Lowering, node: Node, x: Blob) -> Blob:
    """`cuts` says how much is cut off. Output beyond the full result is only bias."""
    dimensions = dimensions_of(node)
    x = as_image(context, x, dimensions)
    attrs = node.attrs
    kernel_size, stride, dilation = _window(node, dimensions)
    mode = choice(node, "padding", ("valid", "same"), "valid")
    option = attrs.get("output_padding")
    extra = None if option is None else pair(option, dimensions, "output_padding", fill=0)
    filters, groups = attrs["filters"], attrs.get("groups", 1)
    if groups != 1:
        raise ConversionError(f"groups={groups}: transposed convolution without groups only")
    spans = kernel_size[-dimensions:]
    channels = _channels(node, x, axis=-1)
    kernel = _square(weight(node, "kernel", *spans, filters, channels), dimensions)
    crops = [
        cuts(mode, k, s, d, None if extra is None else extra[axis])
        if axis >= 2 - dimensions
        else (0, 0)
        for axis, (k, s, d) in enumerate(zip(kernel_size, stride, dilation, strict=True))
    ]
    beyond = [max(0, -end) for _, end in crops]
    crop_amounts = [(start, max(0, end)) for start, end in crops]
    bias = _bias(node, filters)
    weights = dilated_kernel(context, kernel.transpose(3, 2, 0, 1), dilation)
    y = context.layer(
        "convolution",
        x,
        isDeconvolution=True,
        outputChannels=filters,
        kernelChannels=channels,
        nGroups=1,
        kernelSize=weights.shape[2:],
        stride=stride,
        weights=weights,
        valid=edges(crop_amounts[0], crop_amounts[1]),
        **({} if any(beyond) else bias),
    )
    if any(beyond):
        amounts = edges((0, beyond[0]), (0, beyond[1]))
        y = context.layer("padding", y, constant={"value": 0.0}, **amounts)
        if bias:
            y = context.layer("bias", y, shape=(filters, 1, 1), bias=bias["bias"])
    return from_image(context, y, dimensions)


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
