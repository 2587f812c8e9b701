"""Quantization: weights stay quantized, activations are rounded as the source does."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, as_blob, extent, known, scalar, shaped, vector
from mlferry.converters.values import Blob, Constant, Operand, Quantized
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.spec.weights import Linear

_QUANTIZE = ("QuantizeLinear", "com.microsoft.QuantizeLinear")
_DEQUANTIZE = ("DequantizeLinear", "com.microsoft.DequantizeLinear")
_BITS = {"int8": 8, "uint8": 8, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
_RANGES = {
    kind: (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for kind, bits in {**_BITS, "int16": 16, "uint16": 16}.items()
}


def along(context: Lowering, x: Blob, values: Operand, axis: int) -> Blob:
    """Scales or zero points in a shape that broadcasts along an axis."""
    if isinstance(values, Constant):
        array = values.floats
        if array.size == 1:
            return context.constant(array.reshape(1))
        shape = [1] * x.rank
        shape[axis] = array.size
        return context.constant(array.reshape(shape))
    blob: Blob = values
    if blob.is_scalar or known(blob) == (1,):
        return blob
    shape = [1] * x.rank
    shape[axis] = known(blob)[0]
    return shaped(context, blob, shape)


def rounded(context: Lowering, x: Blob) -> Blob:
    """Values rounded to 8 bits by their own range."""
    codes, scale, shift = _by_range(context, x)
    moved = context.subtract(codes, shift)
    return context.multiply(moved, scale)


def _along(context: Lowering, node: Node, x: Blob, values: Operand) -> Blob:
    axis, block = node.attrs.get("axis", 1), node.attrs.get("block_size", 0)
    if not block:
        return along(context, x, values, axis)
    size = extent(x, axis)
    places = context.constant(np.arange(size) // block)
    blob = as_blob(context, values)
    return context.gather(blob, places, axis)


@op(*_QUANTIZE, raw=True)
def quantize_linear(
    context: Lowering, node: Node, x: Operand, scale: Operand, zero: Operand | None = None
) -> Blob:
    """round(x / scale) + zero point, clipped to the type's range; halves are rounded to even."""
    for name in ("saturate", "precision"):
        node.attrs.get(name)
    kind = node.outputs[0].dtype
    node.attrs.get("output_dtype")
    if kind not in _RANGES:
        raise ConversionError(f"quantization to {kind}")
    blob: Blob = as_blob(context, x)
    if not context.rounds_activations and _only_dequantized(context, node):
        for name in ("axis", "block_size"):
            node.attrs.get(name)
        return blob
    least, most = _RANGES[kind]
    output = context.divide(blob, _along(context, node, blob, scale))
    output = context.emit("round", output)
    if zero is not None:
        output = context.add(output, _along(context, node, blob, zero))
    return context.emit("clip", output, minVal=float(least), maxVal=float(most))


@op(*_DEQUANTIZE, raw=True)
def dequantize_linear(
    context: Lowering, node: Node, x: Operand, scale: Operand, zero: Operand | None = None
) -> Operand:
    """(x - zero point) * scale; a constant remembers its integers."""
    node.attrs.get("output_dtype")
    if isinstance(x, Constant) and isinstance(scale, Constant) and not isinstance(zero, Blob):
        return remembered(node, x, scale, zero, node.inputs[0].dtype)
    maker = _maker(context, node.inputs[0].name)
    if not context.rounds_activations and maker is not None and _only_dequantized(context, maker):
        for name in ("axis", "block_size"):
            node.attrs.get(name)
        return x
    x = as_blob(context, x)
    moved = x if zero is None else context.subtract(x, _along(context, node, x, zero))
    return context.multiply(moved, _along(context, node, x, scale))


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(context: Lowering, node: Node, x: Blob) -> tuple[Blob, Blob, Blob]:
    return _by_range(context, x)


def _by_range(context: Lowering, x: Blob) -> tuple[Blob, Blob, Blob]:
    """Rounds to 0..255; scale and zero point are computed from the range of the values and 0."""
    source = vector(x)
    most, least = (
        scalar(context.layer(kind, source, reduceAll=True, keepDims=False))
        for kind in ("reduceMax", "reduceMin")
    )
    zero = context.constant([0.0])
    most = context.maximum(most, zero)
    least = context.minimum(least, zero)
    step = scalar(affine(context, context.subtract(most, least), 1 / 255))
    empty = context.emit("equal", step, alpha=0.0)
    scale = context.add(step, empty)  # 1 where all is 0
    shift = context.emit("round", context.divide(affine(context, least, -1.0), scale))
    shift = scalar(context.emit("clip", shift, minVal=0.0, maxVal=255.0))
    steps = context.emit("round", context.divide(x, scale))
    moved = context.add(steps, shift)
    return context.emit("clip", moved, minVal=0.0, maxVal=255.0), scale, shift


def _only_dequantized(context: Lowering, node: Node) -> bool:
    """Whether every reader dequantizes the value at once."""
    if node.op not in _QUANTIZE:
        return False
    name = node.outputs[0].name
    readers = context.graph.readers(name)
    shown = any(value.name == name for _, value in context.graph.outputs)
    return bool(readers) and not shown and all(n.op in _DEQUANTIZE for n in readers)


def _maker(context: Lowering, name: str) -> Node | None:
    return next((n for n in context.graph.nodes if any(v.name == name for v in n.outputs)), None)


def remembered(
    node: Node,
    x: Constant,
    scale: Constant,
    zero: Constant | None,
    kind: str | None = None,
    axis: int | None = None,
) -> Constant:
    """The floats that constant integers stand for, together with the integers.

    Core ML has no scales for blocks of a channel; such weights become floats.
    """
    block = node.attrs.get("block_size", 0)
    axis = node.attrs.get("axis", 1) if axis is None else axis
    kind = str(x.array.dtype) if kind is None else kind
    codes = x.array.astype(np.int32)
    scales = scale.floats
    zeros = np.zeros_like(scales) if zero is None else zero.floats
    if block:
        within = tuple(map(slice, codes.shape))  # repeated blocks may go beyond the end of an axis
        scales, zeros = (np.repeat(v, block, axis)[within] for v in (scales, zeros))
        return Constant(x.name, ((codes - zeros) * scales).astype(np.float32))
    if zeros.size > scales.size:
        scales = np.broadcast_to(scales.ravel(), zeros.shape)
    if scales.size > 1:
        axis %= codes.ndim
        shape = [1] * codes.ndim
        shape[axis] = scales.size
        full = (codes - zeros.reshape(shape)) * scales.reshape(shape)
    else:
        full = (codes - zeros.ravel()) * scales.ravel()
        full = full.reshape(codes.shape)
    if kind not in _BITS:
        return Constant(x.name, full.astype(np.float32))
    lowest = _RANGES[kind][0]
    quantized = Quantized(
        (codes - lowest).astype(np.uint8), _BITS[kind], scales.ravel(), zeros.ravel() - lowest, axis
    )
    return Constant(x.name, full.astype(np.float32), quantized)


def weights_of(
    constant: Constant,
    array: Array,
    channel_axis: int,
    *,
    turned: bool = False,
    factor: float = 1.0,
) -> Any:
    """What to store for a weight: the source's integers, or the floats.

    Args:
        array: its floats as the layer wants them: reshaped, or transposed if `turned`.
        channel_axis: the axis of the stored weight for which Core ML has scales.
        turned: whether `array` is the transposed matrix.
        factor: what the floats were multiplied by.
    """
    quantized = constant.quantized
    if quantized is None:
        return array
    codes = quantized.codes.T if turned else quantized.codes.reshape(array.shape)
    axis = (1 - quantized.axis) if turned else quantized.axis
    if quantized.scale.size > 1 and axis != channel_axis:
        return array
    scale = (quantized.scale * np.float32(factor)).astype(np.float32)
    return Linear(np.ascontiguousarray(codes), quantized.bits, scale, -scale * quantized.zero)
