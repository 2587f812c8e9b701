"""Convolution, transposed convolution and pooling, through matrix products."""

from __future__ import annotations

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.convolution.definition import (
    deconvolution_edges,
    deconvolution_size,
    edges_of,
    pooling_divisor,
    pooling_size,
)
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.numerics import windows

_BLOCK = 1 << 22  # float32 values of unfolded input that are held at a time


@kernel("convolution")
def convolution(
    params: Params, x: Array, weights: Array | None = None, bias: Array | None = None
) -> Array:
    """Weights are [outC, kernC, kH, kW], for a deconvolution [inC, outC / groups, kH, kW].

    In a network of version 4 weights may come as an input.
    """
    outer, maps = x.shape[:-3], x.reshape(-1, *x.shape[-3:])
    if weights is None:
        weights = _weights(params)
    if bias is None and params.hasBias:
        bias = params.weight("bias", (params.outputChannels,))
    y = (
        _deconvolve(params, maps, weights)
        if params.isDeconvolution
        else _convolve(params, maps, weights)
    )
    if bias is not None:
        y += bias.reshape(-1, 1, 1)
    return y.reshape(*outer, *y.shape[1:])


def _weights(params: Params) -> Array:
    if params.isDeconvolution:
        shape = (params.kernelChannels, params.outputChannels // params.nGroups, *params.kernelSize)
        return params.weight("weights", shape, channel_axis=1)
    return params.weight(
        "weights", (params.outputChannels, params.kernelChannels, *params.kernelSize)
    )


def padded(x: Array, edges: tuple[windows.Edges, ...], value: float = 0.0) -> Array:
    """`x` with its last two axes padded by a constant."""
    if not any(map(any, edges)):
        return x
    widths = [(0, 0)] * (x.ndim - 2) + list(edges)
    return np.pad(x, widths, constant_values=np.float32(value))


def _convolve(params: Params, x: Array, weights: Array) -> Array:
    kernel_size, stride, dilation = params.kernelSize, params.stride, params.dilationFactor
    x = padded(x, edges_of(params, x.shape))
    count, channels, height, width = x.shape
    groups, out_channels = params.nGroups, weights.shape[0]
    out_h, out_w = (
        windows.slide(size, (k - 1) * d + 1, s, (0, 0)) or 0
        for size, k, s, d in zip((height, width), kernel_size, stride, dilation, strict=True)
    )
    if groups == channels and weights.shape[1] == 1 and groups > 1:
        return _depthwise(x, weights, stride, dilation, (out_h, out_w))
    taps = kernel_size[0] * kernel_size[1]
    matrix = weights.reshape(groups, out_channels // groups, -1)
    y = np.empty((count, groups, out_channels // groups, out_h, out_w), np.float32)
    if taps == 1 and tuple(stride) == (1, 1):
        columns = x.reshape(count, groups, channels // groups, out_h * out_w)
        np.matmul(matrix, columns, out=y.reshape(count, groups, -1, out_h * out_w))
        return y.reshape(count, out_channels, out_h, out_w)
    rows = max(1, min(out_h, _BLOCK // max(1, channels * taps * out_w)))
    for sample in range(count):
        for top in range(0, out_h, rows):
            part = min(rows, out_h - top)
            windowed = _unfold(x[sample], kernel_size, stride, dilation, (top, part, out_w))
            product = np.matmul(matrix, windowed.reshape(groups, -1, part * out_w))
            y[sample, :, :, top : top + part] = product.reshape(groups, -1, part, out_w)
    return y.reshape(count, out_channels, out_h, out_w)


def _unfold(
    x: Array,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    rows: tuple[int, int, int],
) -> Array:
    """The windows of some output rows of one sample as [C, kH, kW, rows, width]."""
    top, part, out_w = rows
    columns = np.empty((x.shape[0], *kernel_size, part, out_w), np.float32)
    for i in range(kernel_size[0]):
        first = top * stride[0] + i * dilation[0]
        lines = slice(first, first + (part - 1) * stride[0] + 1, stride[0])
        for j in range(kernel_size[1]):
            left = j * dilation[1]
            cells = slice(left, left + (out_w - 1) * stride[1] + 1, stride[1])
            columns[:, i, j] = x[:, lines, cells]
    return columns


def _depthwise(
    x: Array,
    weights: Array,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
) -> Array:
    multiplier = weights.shape[0] // x.shape[1]
    taps = weights.reshape(x.shape[1], multiplier, *weights.shape[2:])
    y = np.zeros((x.shape[0], x.shape[1], multiplier, *size), np.float32)
    for i in range(taps.shape[2]):
        first = i * dilation[0]
        lines = slice(first, first + (size[0] - 1) * stride[0] + 1, stride[0])
        for j in range(taps.shape[3]):
            left = j * dilation[1]
            cells = slice(left, left + (size[1] - 1) * stride[1] + 1, stride[1])
            y += x[:, :, None, lines, cells] * taps[:, :, i, j, None, None]
    return y.reshape(x.shape[0], -1, *size)


def _deconvolve(params: Params, x: Array, weights: Array) -> Array:
    """Each input value adds its scaled kernel; what lies in the padding is cut off."""
    (kernel_h, kernel_w), (stride_h, stride_w) = params.kernelSize, params.stride
    dilation_h, dilation_w = params.dilationFactor
    count, channels, height, width = x.shape
    groups, per_group = params.nGroups, weights.shape[1]
    full = (
        (height - 1) * stride_h + (kernel_h - 1) * dilation_h + 1,
        (width - 1) * stride_w + (kernel_w - 1) * dilation_w + 1,
    )
    matrix = weights.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    spread = np.matmul(matrix, x.reshape(count, groups, channels // groups, height * width))
    spread = spread.reshape(count, groups * per_group, kernel_h, kernel_w, height, width)
    wanted = deconvolution_size(params, (height, width))
    edges = deconvolution_edges(params, full, (wanted[0] or 0, wanted[1] or 0))
    extent = [max(f, e[0] + (w or 0)) for f, e, w in zip(full, edges, wanted, strict=True)]
    y = np.zeros((count, groups * per_group, *extent), np.float32)
    for i in range(kernel_h):
        top = i * dilation_h
        lines = slice(top, top + (height - 1) * stride_h + 1, stride_h)
        for j in range(kernel_w):
            left = j * dilation_w
            cells = slice(left, left + (width - 1) * stride_w + 1, stride_w)
            y[:, :, lines, cells] += spread[:, :, i, j]
    (top, _), (left, _) = edges
    return y[:, :, top : top + (wanted[0] or 0), left : left + (wanted[1] or 0)]


@kernel("pooling")
def pooling(params: Params, x: Array) -> Array:
    """MAX, AVERAGE, or L2: the square root of the sum of squares.

    Padding never wins a maximum. With `includeLastPixel` an average divides by the part of the
    window inside the padded input, as Caffe does, for which that mode was made.
    """
    if params.globalPooling:
        return _global_pooling(params, x)
    out, edges = pooling_size(params, x.shape[-2:])
    filler = -np.inf if params.type == "MAX" else 0.0
    y = np.full((*x.shape[:-2], *out), filler, np.float32)
    source = padded(np.square(x) if params.type == "L2" else x, edges, filler)
    (kernel_h, kernel_w), (stride_h, stride_w) = params.kernelSize, params.stride
    combine = np.maximum if params.type == "MAX" else np.add
    for i in range(kernel_h):
        lines = slice(i, i + (out[0] - 1) * stride_h + 1, stride_h)
        for j in range(kernel_w):
            cells = slice(j, j + (out[1] - 1) * stride_w + 1, stride_w)
            combine(y, source[..., lines, cells], out=y)
    if params.type == "L2":
        return np.sqrt(y)
    if params.type == "AVERAGE":
        y /= pooling_divisor(params, x.shape[-2:], out, edges)
    return y


def _global_pooling(params: Params, x: Array) -> Array:
    axes = (-2, -1)
    if params.type == "MAX":
        return x.max(axis=axes, keepdims=True)
    if params.type == "AVERAGE":
        return x.mean(axis=axes, keepdims=True, dtype=np.float32)
    if params.type == "L2":
        return np.sqrt(np.square(x).sum(axis=axes, keepdims=True))
    raise SpecError(f"pooling type {params.type}")
