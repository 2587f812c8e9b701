"""Sampling an image at computed positions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlferry.converters.convolutions import Windows, convolved
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, emit, joined, known
from mlferry.converters.values import SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError


class GridSampling(NamedTuple):
    """How values between and beyond the pixels are made; `corners`: ends are pixels' centres."""

    mode: str
    padding: str
    corners: bool


@op("GridSample")
def grid_sample(context: Lowering, node: Node, x: Blob, grid: Blob) -> Blob:
    """Gathers the neighbours of every position, in two or three dimensions."""
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(
        node.attrs.get("mode", "linear"), node.attrs.get("mode", "linear")
    )
    padding = node.attrs.get("padding_mode", "zeros")
    corners = node.attrs.get("align_corners", 0)
    sizes = known(x)[2:]
    dimensions = len(sizes)
    if mode == "cubic" and dimensions != 2:
        raise ConversionError("cubic sampling of volumes")
    parts = context.outputs(
        dimensions, "splitND", grid, layout=SOURCE, axis=-1, numSplits=dimensions
    )
    positions = []
    for part, size in zip(parts[::-1], sizes, strict=True):
        scale = (size - 1) / 2 if corners else size / 2
        shift = (size - 1) / 2
        positions.append(affine(context, part, scale, shift))
    if padding == "border":
        positions = [_clipped(context, p, n) for p, n in zip(positions, sizes, strict=True)]
    elif padding == "reflection" and mode != "cubic":
        positions = [
            _reflected(context, p, n, bool(corners)) for p, n in zip(positions, sizes, strict=True)
        ]
    return _sampled(context, x, positions, GridSampling(mode, padding, bool(corners)))


@op("DeformConv", raw=True)
def deform_conv(
    context: Lowering,
    node: Node,
    given: Operand,
    weights: Operand,
    offset: Operand,
    bias: Operand | None = None,
    mask: Operand | None = None,
) -> Blob:
    """Every entry of every window is sampled, then a convolution of single pixels.

    Offsets are [N, parts * entries * 2, height, width], first down, then across.
    """
    attrs = node.attrs
    x, offset, mask = as_blob(context, given), as_blob(context, offset), as_blob(context, mask)
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
    sampled = []
    for part, moved in zip(_split(context, x, parts), _split(context, offset, parts), strict=True):
        flat = context.reshape(moved, (batch, count, 2, height * width), layout=SOURCE)
        positions = [
            emit(
                context,
                "addBroadcastable",
                context.reshape(half, (batch, count * height, width, 1), layout=SOURCE),
                start,
            )
            for half, start in zip(
                context.outputs(2, "splitND", flat, layout=SOURCE, axis=2, numSplits=2),
                starts,
                strict=True,
            )
        ]
        sampled.append(_sampled(context, part, positions, GridSampling("linear", "zeros", False)))
    shape = (batch, channels // parts, count, height * width)
    results = [context.reshape(part, shape, layout=SOURCE) for part in sampled]
    if mask is not None:
        factors = [
            context.reshape(part, (batch, 1, count, height * width), layout=SOURCE)
            for part in _split(context, mask, parts)
        ]
        results = [
            emit(context, "multiplyBroadcastable", part, factor)
            for part, factor in zip(results, factors, strict=True)
        ]
    windows = context.reshape(
        joined(context, results, 1), (batch, channels * count, height, width), layout=SOURCE
    )
    if isinstance(weights, Constant) and (bias is None or isinstance(bias, Constant)):
        rows = weights.array.reshape(sizes[0], -1, 1, 1)
        how = Windows([1, 1], [1, 1], [(0, 0), (0, 0)], group)
        shift = None if bias is None else bias.array
        flat_weights = np.ascontiguousarray(rows, np.float32)
        return convolved(context, windows, flat_weights, how, bias=shift)
    return _multiplied(context, windows, weights, bias, sizes, group)


def _multiplied(
    context: Lowering,
    x: Blob,
    weights: Operand,
    bias: Operand | None,
    sizes: Sequence[int],
    group: int,
) -> Blob:
    """A convolution of single pixels by weights that are computed: a product a group."""
    batch, _, height, width = known(x)
    bias = as_blob(context, bias)
    each = sizes[1] * sizes[2] * sizes[3]
    rows = context.reshape(
        as_blob(context, weights), (group, sizes[0] // group, each), layout=SOURCE
    )
    columns = context.reshape(x, (batch, group, each, height * width), layout=SOURCE)
    product = emit(context, "batchedMatmul", context.expand(rows, 0), columns)
    output = context.reshape(product, (batch, sizes[0], height, width), layout=SOURCE)
    if bias is None:
        return output
    return emit(context, "addBroadcastable", output, context.expand(bias, 1, 2))


_WINDOW = {"dilations": (1, 1), "pads": (0, 0, 0, 0), "strides": (1, 1)}


def _split(context: Lowering, x: Blob, parts: int) -> Sequence[Blob]:
    """The channels in so many parts."""
    if parts == 1:
        return [x]
    return context.outputs(parts, "splitND", x, layout=SOURCE, axis=1, numSplits=parts)


def _clipped(context: Lowering, p: Blob, size: int) -> Blob:
    return emit(context, "clip", p, minVal=0.0, maxVal=float(size - 1))


def _reflected(context: Lowering, p: Blob, size: int, corners: bool) -> Blob:
    """Back and forth between the outermost pixels' centres, or their edges."""
    start, span = (0.0, size - 1.0) if corners else (-0.5, float(size))
    if span == 0:
        return affine(context, p, 0.0)
    moved = emit(context, "unary", affine(context, p, 1.0, -start), type="ABS")
    period = context.constant([2 * span])
    within = emit(context, "modBroadcastable", moved, period)
    back = affine(context, within, -1.0, 2 * span)
    folded = affine(context, emit(context, "minBroadcastable", within, back), 1.0, start)
    return _clipped(context, folded, size)


def _sampled(context: Lowering, x: Blob, positions: list[Blob], grid: GridSampling) -> Blob:
    """The sum over neighbours of weight times value, as [N, C, ...]."""
    choices = [_neighbours(context, p, grid.mode) for p in positions]
    total: Blob | None = None
    channels_last = context.layer("transpose", x, layout=SOURCE, axes=(0, *range(2, x.rank), 1))
    for corner in itertools.product(*choices):
        places, weights = [c[0] for c in corner], [c[1] for c in corner]
        value = _values(context, channels_last, places, known(x)[2:], grid)
        for weight in weights:
            value = (
                value if weight is None else emit(context, "multiplyBroadcastable", value, weight)
            )
        total = value if total is None else emit(context, "addBroadcastable", total, value)
    assert total is not None
    axes = (0, total.rank - 1, *range(1, total.rank - 1))
    return context.layer("transpose", total, layout=SOURCE, axes=axes)


def _neighbours(context: Lowering, p: Blob, mode: str) -> list[tuple[Blob, Blob | None]]:
    """Along one axis: the places around a position and their weights."""
    if mode == "nearest":
        return [(emit(context, "round", p), None)]
    floor = emit(context, "floor", p)
    fraction = emit(context, "subtractBroadcastable", p, floor)
    if mode == "linear":
        return [
            (floor, affine(context, fraction, -1.0, 1.0)),
            (affine(context, floor, 1.0, 1.0), fraction),
        ]
    results: list[tuple[Blob, Blob | None]] = []
    for offset in (-1, 0, 1, 2):
        distance = emit(
            context, "unary", affine(context, fraction, 1.0, -float(offset)), type="ABS"
        )
        results.append(
            (affine(context, floor, 1.0, float(offset)), _cubic(context, distance, offset))
        )
    return results


def _cubic(context: Lowering, d: Blob, offset: int, a: float = -0.75) -> Blob:
    """Keys's kernel, in Horner's form, of the inner or the outer neighbours."""
    inner = offset in (0, 1)
    third, second, first, zeroth = (
        (a + 2, -(a + 3), 0.0, 1.0) if inner else (a, -5 * a, 8 * a, -4 * a)
    )
    value = affine(context, d, third, second)
    value = affine(context, emit(context, "multiplyBroadcastable", value, d), 1.0, first)
    return affine(context, emit(context, "multiplyBroadcastable", value, d), 1.0, zeroth)


def _values(
    context: Lowering, x: Blob, places: list[Blob], sizes: tuple[int, ...], grid: GridSampling
) -> Blob:
    """The values of [N, ..., C] at integer places; outside they are 0, or those of the edge."""
    if grid.padding == "reflection" and grid.mode == "cubic":
        places = [
            _reflected(context, p, n, grid.corners) for p, n in zip(places, sizes, strict=True)
        ]
    remaining = [_clipped(context, p, n) for p, n in zip(places, sizes, strict=True)]
    shape = known(remaining[0])
    batch = np.broadcast_to(np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)), shape)
    indices = context.layer("concatND", context.constant(batch), *remaining, layout=SOURCE, axis=-1)
    output = context.layer("gatherND", x, indices, layout=SOURCE)
    if grid.padding != "zeros":
        return output
    for place, inside in zip(places, remaining, strict=True):
        there = emit(context, "equal", place, inside)
        output = emit(context, "multiplyBroadcastable", output, there)
    return output
