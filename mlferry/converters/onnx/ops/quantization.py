"""Quantization: weights stay quantized, activations are rounded as the source does."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import Blob, Constant, Quantized
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.registry import emit, known, op, shaped
from mlferry.errors import ConversionError
from mlferry.spec.weights import Linear

_BITS = {"int8": 8, "uint8": 8, "int4": 4, "uint4": 4}
_RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15),
           "int16": (-32768, 32767), "uint16": (0, 65535)}  # fmt: skip


def _along(low: Lowering, node: Node, x: Blob, values: Any) -> Any:
    """Scales or zero points in the shape that broadcasts along the axis."""
    if node.attrs.get("block_size", 0):
        raise ConversionError("quantization in blocks")
    axis = node.attrs.get("axis", 1)
    if isinstance(values, Constant):
        array = values.array.astype(np.float32)
        if array.size == 1:
            return low.constant(array.reshape(1))
        shape = [1] * x.rank
        shape[axis] = array.size
        return low.constant(array.reshape(shape))
    if values.is_scalar or known(values) == (1,):
        return values
    shape = [1] * x.rank
    shape[axis] = known(values)[0]
    return shaped(low, values, shape)


@op("QuantizeLinear", raw=True)
def quantize_linear(low: Lowering, node: Node, x: Any, scale: Any, zero: Any = None) -> Blob:
    """round(x / scale) + zero point, kept in the type's range; halves go to even."""
    for name in ("saturate", "precision"):
        node.attrs.get(name)
    kind = node.outputs[0].dtype
    node.attrs.get("output_dtype")
    if kind not in _RANGES:
        raise ConversionError(f"quantization to {kind}")
    x = low.stored(x) if isinstance(x, Constant) else x
    least, most = _RANGES[kind]
    made = emit(low, "divideBroadcastable", x, _along(low, node, x, scale))
    made = emit(low, "round", made)
    if zero is not None:
        made = emit(low, "addBroadcastable", made, _along(low, node, x, zero))
    return emit(low, "clip", made, minVal=float(least), maxVal=float(most))


@op("DequantizeLinear", raw=True)
def dequantize_linear(low: Lowering, node: Node, x: Any, scale: Any, zero: Any = None) -> Any:
    """(x - zero point) * scale; a constant remembers its integers."""
    node.attrs.get("output_dtype")
    fixed = all(v is None or isinstance(v, Constant) for v in (x, scale, zero))
    if fixed:
        return _remembered(node, x, scale, zero)
    x = low.stored(x) if isinstance(x, Constant) else x
    moved = x if zero is None else emit(low, "subtractBroadcastable", x, _along(low, node, x, zero))
    return emit(low, "multiplyBroadcastable", moved, _along(low, node, x, scale))


def _remembered(node: Node, x: Constant, scale: Constant, zero: Constant | None) -> Constant:
    if node.attrs.get("block_size", 0):
        raise ConversionError("quantization in blocks")
    axis = node.attrs.get("axis", 1)
    kind = node.inputs[0].dtype
    codes = x.array.astype(np.int32)
    scales = scale.array.astype(np.float32)
    zeros = np.zeros_like(scales) if zero is None else zero.array.astype(np.float32)
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
    constant: Constant, array: Any, channel_axis: int, *, turned: bool = False, factor: float = 1.0
) -> Any:
    """What to store for a weight: the source's integers, or the floats.

    Args:
        constant: the weight.
        array: its floats, as the layer wants them: reshaped, or transposed where `turned`.
        channel_axis: the axis of the stored weight along which Core ML has scales.
        turned: whether `array` is the transposed matrix.
        factor: what the floats were multiplied by.
    """
    q = constant.quantized
    if q is None:
        return array
    codes = q.codes.T if turned else q.codes.reshape(array.shape)
    axis = (1 - q.axis) if turned else q.axis
    if q.scale.size > 1 and axis != channel_axis:
        return array
    scale = (q.scale * np.float32(factor)).astype(np.float32)
    return Linear(np.ascontiguousarray(codes), q.bits, scale, -scale * q.zero)
