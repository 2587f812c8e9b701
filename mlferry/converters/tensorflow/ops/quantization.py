"""Rounding to few bits: weights stay quantized, activations are rounded as the source does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, array_of, as_blob
from mlferry.converters.tensorflow.ops.registry import joint, op, refuse
from mlferry.converters.values import ANY, Blob, Constant, Operand, Quantized
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array
from mlferry.spec.weights import Linear

MOST_BITS = 8


def stored(constant: Operand, turn: Callable[[Array], Array], channel_axis: int) -> Linear | None:
    """What to store for a weight that is quantized, or None for its floats.

    Args:
        turn: from the source's axes to the layer's.
        channel_axis: the layer's axis along which Core ML has scales.
    """
    quantized = constant.quantized if isinstance(constant, Constant) else None
    if quantized is None:
        return None
    codes = np.ascontiguousarray(turn(quantized.codes))
    if quantized.scale.size > 1:
        marks = np.zeros(quantized.codes.shape, np.int64)
        shape = [1] * quantized.codes.ndim
        shape[quantized.axis] = quantized.scale.size
        moved = turn(marks + np.arange(quantized.scale.size).reshape(shape))
        spread_shape = [1] * moved.ndim
        spread_shape[channel_axis] = quantized.scale.size
        if moved.shape[channel_axis] != quantized.scale.size or not np.array_equal(
            moved,
            np.broadcast_to(np.arange(quantized.scale.size).reshape(spread_shape), moved.shape),
        ):
            return None
    return Linear(codes, quantized.bits, quantized.scale, -quantized.scale * quantized.zero)


def nudged(
    least: ArrayLike, most: ArrayLike, bits: int, narrow: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The scale and the range, moved so that 0 is one of the steps (TensorFlow's rule)."""
    lowest, highest = (1 if narrow else 0), 2**bits - 1
    start, end = (np.asarray(v, np.float32) for v in (least, most))
    scale = (end - start) / np.float32(highest - lowest)
    start = np.float32(lowest) - start / scale
    zero = np.where(start < lowest, lowest, np.where(start > highest, highest, np.round(start)))
    zero = zero.astype(np.float32)
    return scale, (lowest - zero) * scale, (highest - zero) * scale


def _rounded(
    context: Lowering, node: Node, x: Operand, least: ArrayLike, most: ArrayLike
) -> Operand:
    bits, narrow = node.attrs.get("num_bits", 8), bool(node.attrs.get("narrow_range", False))
    scale, start, end = nudged(least, most, bits, narrow)
    if isinstance(x, Constant):
        clipped = np.clip(x.floats, start, end)
        codes = np.floor((clipped - start) / scale + np.float32(0.5))
        values = (codes * scale + start).astype(np.float32)
        if bits > MOST_BITS:
            return Constant(x.name, values)
        size = np.size(scale)
        flat = np.broadcast_to(scale, (size,)).astype(np.float32)
        zero = np.broadcast_to(-start / scale, (size,)).astype(np.float32)
        quantized = Quantized(codes.astype(np.uint8), bits, flat, zero, x.array.ndim - 1)
        return Constant(x.name, values, quantized)
    blob = as_blob(context, x)
    if not context.rounds_activations:
        return blob
    fixed = [Constant("", np.asarray(v, np.float32)) for v in (start, end, scale)]
    limited = joint(context, "maxBroadcastable", blob, fixed[0])
    limited = joint(context, "minBroadcastable", limited, fixed[1])
    moved = joint(context, "subtractBroadcastable", limited, fixed[0])
    steps = joint(context, "divideBroadcastable", moved, fixed[2])
    whole = context.emit("floor", affine(context, steps, 1.0, 0.5))
    back = joint(context, "multiplyBroadcastable", whole, fixed[2])
    return joint(context, "addBroadcastable", back, fixed[0])


@op("FakeQuantWithMinMaxArgs", raw=True)
def fake_quant_args(context: Lowering, node: Node, x: Operand) -> Operand:
    return _rounded(context, node, x, node.attrs.get("min", -6.0), node.attrs.get("max", 6.0))


@op("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel", raw=True)
def fake_quant_vars(
    context: Lowering, node: Node, x: Operand, least: Operand, most: Operand
) -> Operand:
    return _rounded(context, node, x, array_of(node, 1, least), array_of(node, 2, most))


@op("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4", layouts=ANY)
def quantize_and_dequantize(context: Lowering, node: Node, x: Blob, *rest: Blob) -> Blob:
    """Omitted if activations are not rounded; the rounding itself is refused."""
    refuse(node, "range_given", False)
    for name in ("num_bits", "signed_input", "round_mode", "narrow_range", "axis"):
        node.attrs.get(name)
    if context.rounds_activations:
        raise ConversionError(
            "rounding by the range of each batch: pass activation_quantization='drop' to leave it "
            "out"
        )
    return x
