"""Sampling an image at computed positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.convolutions import Windows, convolved
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, joined, known
from mlferry.converters.sampling import GridSampling, clipped, reflected, sampled
from mlferry.converters.values import Blob, Constant, Operand
from mlferry.errors import ConversionError


@op("GridSample")
def grid_sample(context: Lowering, node: Node, x: Blob, grid: Blob) -> Blob:
    """Gathers the neighbours of every position in two or three dimensions."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(
        node.attrs.get("mode", "linear"), node.attrs.get("mode", "linear")
    )
    padding = node.attrs.get("padding_mode", "zeros")
    corners = node.attrs.get("align_corners", 0)
    sizes = known(x)[2:]
    dimensions = len(sizes)
    if mode == "cubic" and dimensions != 2:
        raise ConversionError("cubic sampling of volumes")
    parts = context.split(grid, dimensions, -1)
    positions = []
    for part, size in zip(parts[::-1], sizes, strict=True):
        scale = (size - 1) / 2 if corners else size / 2
        shift = (size - 1) / 2
        positions.append(affine(context, part, scale, shift))
    if padding == "border":
        positions = [clipped(context, p, n) for p, n in zip(positions, sizes, strict=True)]
    elif padding == "reflection" and mode != "cubic":
        positions = [
            reflected(context, p, n, bool(corners)) for p, n in zip(positions, sizes, strict=True)
        ]
    return sampled(context, x, positions, GridSampling(mode, padding, bool(corners)))


@op("DeformConv", raw=True)
def deform_conv(
    context: Lowering,
    node: Node,
    image: Operand,
    weights: Operand,
    offset: Operand,
    bias: Operand | None = None,
    mask: Operand | None = None,
) -> Blob:
    """Samples every entry of every window, and convolves single pixels.

    Offsets are [N, parts * entries * 2, height, width], first vertical, then horizontal.
    """
    attrs = node.attrs
    x, offset, mask = as_blob(context, image), as_blob(context, offset), as_blob(context, mask)
    sizes = weights.array.shape if isinstance(weights, Constant) else known(weights)
    kernel = tuple(sizes[2:])
    if len(kernel) != 2 or tuple(attrs.get("kernel_shape", kernel)) != kernel:
        raise ConversionError(f"a deformable convolution by a kernel of shape {sizes}")
    values = [attrs.get(name, default) for name, default in _WINDOW.items()]
    parts, group = attrs.get("offset_group", 1), attrs.get("group", 1)
    batch, channels = known(x)[:2]
    _, _, height, width = known(offset)
    count = kernel[0] * kernel[1]
    base = [
        np.arange(size)[:, None] * stride - pad + np.arange(entries)[None] * dilation
        for size, entries, dilation, pad, stride in zip(
            (height, width), kernel, *values, strict=False
        )
    ]
    down = np.broadcast_to(base[0].T[:, None, :, None], (*kernel, height, width))
    across = np.broadcast_to(base[1].T[None, :, None, :], (*kernel, height, width))
    starts = [context.constant(b.reshape(1, count * height, width, 1)) for b in (down, across)]
    entries = []
    for part, moved in zip(
        context.split(x, parts, 1), context.split(offset, parts, 1), strict=True
    ):
        flat = context.reshape(moved, (batch, count, 2, height * width))
        positions = [
            context.add(context.reshape(half, (batch, count * height, width, 1)), start)
            for half, start in zip(context.split(flat, 2, 2), starts, strict=True)
        ]
        entries.append(sampled(context, part, positions, GridSampling("linear", "zeros", False)))
    shape = (batch, channels // parts, count, height * width)
    results = [context.reshape(part, shape) for part in entries]
    if mask is not None:
        factors = [
            context.reshape(part, (batch, 1, count, height * width))
            for part in context.split(mask, parts, 1)
        ]
        results = [
            context.multiply(part, factor) for part, factor in zip(results, factors, strict=True)
        ]
    columns = context.reshape(joined(context, results, 1), (batch, channels * count, height, width))
    if isinstance(weights, Constant) and (bias is None or isinstance(bias, Constant)):
        rows = weights.array.reshape(sizes[0], -1, 1, 1)
        windows = Windows([1, 1], [1, 1], [(0, 0), (0, 0)], group)
        shift = None if bias is None else bias.array
        flat_weights = np.ascontiguousarray(rows, np.float32)
        return convolved(context, columns, flat_weights, windows, bias=shift)
    return _multiplied(context, columns, weights, bias, sizes, group)


def _multiplied(
    context: Lowering,
    x: Blob,
    weights: Operand,
    bias: Operand | None,
    sizes: Sequence[int],
    group: int,
) -> Blob:
    """A convolution of single pixels with computed weights: a product for each group."""
    batch, _, height, width = known(x)
    bias = as_blob(context, bias)
    each = sizes[1] * sizes[2] * sizes[3]
    rows = context.reshape(as_blob(context, weights), (group, sizes[0] // group, each))
    columns = context.reshape(x, (batch, group, each, height * width))
    product = context.emit("batchedMatmul", context.expand(rows, 0), columns)
    output = context.reshape(product, (batch, sizes[0], height, width))
    if bias is None:
        return output
    return context.add(output, context.expand(bias, 1, 2))


_WINDOW = {"dilations": (1, 1), "pads": (0, 0, 0, 0), "strides": (1, 1)}
