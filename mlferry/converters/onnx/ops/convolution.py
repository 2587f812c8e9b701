"""Convolution and transposed convolution in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import (
    Pairs,
    Windows,
    convolved,
    convolved_by,
    edges,
    same_pairs,
    transposed,
)
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.elementwise import activated
from mlferry.converters.onnx.ops.quantization import weights_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import array_of, as_blob, constant_of, extent, ints, known, shaped
from mlferry.converters.values import Blob, Constant, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.numerics.windows import spans_of


def pads_of(node: Node, x: Blob, spans: list[int], strides: list[int]) -> Pairs:
    """Padding before and after each of the last axes, by `pads` or `auto_pad`."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    option = node.attrs.get("pads")
    if mode in ("NOTSET", "") or (mode == "VALID" and option is None):
        flat = option or [0] * (2 * len(spans))
        return list(zip(flat[: len(spans)], flat[len(spans) :], strict=True))
    if mode == "VALID":
        return [(0, 0)] * len(spans)
    return same_pairs(x, spans, strides, _SAME[mode])


def windows_of(
    node: Node, x: Blob, kernel: Sequence[int], strides: list[int], dilations: list[int]
) -> Windows:
    """How the node's kernel moves over its input; SAME of two axes holds for any size."""
    spans = spans_of(kernel, dilations)
    groups = node.attrs.get("group", 1)
    mode = node.attrs.get("auto_pad", "NOTSET")
    if len(spans) <= 2 and mode in _SAME and max(strides) > 1:
        return Windows(strides, dilations, [(0, 0)] * len(spans), groups, _SAME[mode])
    return Windows(strides, dilations, pads_of(node, x, spans, strides), groups)


_SAME = {"SAME_UPPER": "BOTTOM_RIGHT_HEAVY", "SAME_LOWER": "TOP_LEFT_HEAVY"}


def options(node: Node, dimensions: int, kernel: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Strides and dilations; the kernel's shape is checked."""
    option = node.attrs.get("kernel_shape")
    if option is not None and tuple(option) != kernel:
        raise ConversionError(f"kernel_shape={tuple(option)}, but the weights are {kernel}")
    strides = list(node.attrs.get("strides") or [1] * dimensions)
    dilations = list(node.attrs.get("dilations") or [1] * dimensions)
    return strides, dilations


@op("Conv", raw=True)
def conv(
    context: Lowering, node: Node, x: Operand, weights: Operand, bias: Operand | None = None
) -> Blob:
    x = as_blob(context, x)
    if not isinstance(weights, Constant):
        return _dynamic(context, node, x, weights, bias)
    kernels = weights.floats
    strides, dilations = options(node, kernels.ndim - 2, kernels.shape[2:])
    windows = windows_of(node, x, kernels.shape[2:], strides, dilations)
    stored = weights_of(weights, kernels, 0)
    return convolved(context, x, kernels, windows, stored=stored, bias=_bias(node, bias))


def _bias(node: Node, bias: Operand | None) -> NDArray[np.float32] | None:
    return None if bias is None else array_of(node, 2, bias).astype(np.float32)


def _dynamic(context: Lowering, node: Node, x: Blob, weights: Blob, bias: Operand | None) -> Blob:
    """Computed weights, which Core ML takes as an input in two dimensions."""
    shape = known(weights)
    if len(shape) == 3:
        wide = _dynamic_2d(
            context, node, context.expand(x, 2), context.expand(weights, 2), bias, line=True
        )
        return context.squeeze(wide, 2)
    if len(shape) != 4:
        raise ConversionError("computed weights are possible in one and two dimensions")
    return _dynamic_2d(context, node, x, weights, bias, line=False)


def _dynamic_2d(
    context: Lowering, node: Node, x: Blob, weights: Blob, bias: Operand | None, *, line: bool
) -> Blob:
    shape = known(weights)
    kernel = shape[3:] if line else shape[2:]
    strides, dilations = options(node, len(kernel), kernel)
    spans = spans_of(kernel, dilations)
    pairs = pads_of(node, x, spans, strides)
    if line:
        strides, dilations, pairs = [1, *strides], [1, *dilations], [(0, 0), *pairs]
    if any(map(any, pairs)):
        x = context.layer("padding", x, constant={"value": 0.0}, **edges(pairs))
    windows = Windows(strides, dilations, [(0, 0), (0, 0)], node.attrs.get("group", 1))
    output = convolved_by(context, x, weights, windows)
    if bias is None:
        return output
    bias = as_blob(context, bias)
    return context.add(output, shaped(context, bias, (1, shape[0], 1, 1)))


@op("com.microsoft.FusedConv", "FusedConv", raw=True)
def fused_conv(
    context: Lowering,
    node: Node,
    x: Operand,
    weights: Operand,
    bias: Operand | None = None,
    addend: Operand | None = None,
) -> Blob:
    """A convolution, plus another map, then an activation."""
    output = conv(context, node, x, weights, bias)
    if addend is not None:
        addend = as_blob(context, addend)
        output = context.add(output, addend)
    values = list(node.attrs.get("activation_params") or [])
    names = ("min", "max") if node.attrs.get("activation", "") == "Clip" else ("alpha", "beta")
    return activated(context, node, output, dict(zip(names, values, strict=False)))


@op("ConvTranspose", raw=True)
def conv_transpose(
    context: Lowering, node: Node, x: Operand, weights: Operand, bias: Operand | None = None
) -> Blob:
    """Padding cuts the full result; beyond it, `output_padding` adds only the bias."""
    x = as_blob(context, x)
    fixed = constant_of(node, 1, weights)
    kernels = fixed.floats
    kernel = kernels.shape[2:]
    strides, dilations = options(node, len(kernel), kernel)
    cuts = _cuts(node, x, kernel, strides, dilations)
    windows = Windows(strides, dilations, cuts, node.attrs.get("group", 1))
    return transposed(
        context, x, kernels, windows, stored=weights_of(fixed, kernels, 1), bias=_bias(node, bias)
    )


def _cuts(
    node: Node, x: Blob, kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> Pairs:
    """What is cut off the full result before and after each axis, or added if negative."""
    extra = list(node.attrs.get("output_padding") or [0] * len(kernel))
    shape = node.attrs.get("output_shape")
    mode = node.attrs.get("auto_pad", "NOTSET")
    pads = node.attrs.get("pads")
    cuts = []
    for axis, span in enumerate(kernel):
        reach = (span - 1) * dilations[axis] + 1
        if shape is not None or mode in ("SAME_UPPER", "SAME_LOWER"):
            total = reach - strides[axis] + extra[axis]  # without output_shape, at any size
            if shape is not None:
                full = (extent(x, axis - len(kernel)) - 1) * strides[axis] + reach
                total = full + extra[axis] - shape[-len(kernel) :][axis]
            if shape is None and reach + extra[axis] < strides[axis]:
                raise ConversionError(
                    f"auto_pad={mode} of a kernel of {reach} under its stride of {strides[axis]}: "
                    "runtimes differ in the size of the result; give output_shape"
                )
            small, large = total // 2, total - total // 2
            pair = (small, large) if mode == "SAME_UPPER" else (large, small)
            pair = (0, total) if total < 0 else pair
            cuts.append((pair[0], pair[1] - extra[axis]))
            continue
        flat = pads or [0] * (2 * len(kernel))
        cuts.append((flat[axis], flat[axis + len(kernel)] - extra[axis]))
    return cuts


@op("Col2Im", constants=(1, 2))
def col2im(context: Lowering, node: Node, x: Blob, image: Array, block: Array) -> Blob:
    """Sums blocks where they overlap: a transposed convolution whose kernels hold a single 1."""
    sizes, kernel = ints(image), ints(block)
    dimensions = len(kernel)
    strides, dilations = options(node, dimensions, kernel)
    flat = node.attrs.get("pads") or [0] * (2 * dimensions)
    counts, cuts = [], []
    for axis, size in enumerate(sizes):
        span = (kernel[axis] - 1) * dilations[axis] + 1
        before, after = flat[axis], flat[axis + dimensions]
        counts.append((size + before + after - span) // strides[axis] + 1)
        full = (counts[axis] - 1) * strides[axis] + span
        cuts.append((before, full - before - size))
    places = math.prod(kernel)
    batch, rows, columns = known(x)
    if math.prod(counts) != columns or rows % places:
        raise ConversionError(
            f"{rows} x {columns} values: an image of {sizes} has {math.prod(counts)} blocks of "
            f"{places}"
        )
    channels = rows // places
    single = np.eye(places, dtype=np.float32).reshape(places, 1, *kernel)
    weights = np.concatenate([single] * channels)
    blocks = shaped(context, x, (batch, rows, *counts))
    return transposed(context, blocks, weights, Windows(strides, dilations, cuts, channels))
