"""Products of quantized values: computed on the floats that they stand for.

Sums of products of 8-bit integers are exact in float32 up to 2**24; the rounding that ends a
quantized op follows, so that a result may be one step off where it lies between two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.convolution import conv
from mlferry.converters.onnx.ops.linear import matmul
from mlferry.converters.onnx.ops.quantization import along, quantize_linear, remembered
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import emit
from mlferry.converters.values import Blob, Constant
from mlferry.errors import ConversionError

_ONE = Constant("", np.ones((), np.float32))


def _floats(
    context: Lowering, node: Node, place: int, scale: Any, zero: Any, axis: int
) -> Blob | Constant:
    """(x - zero point) * scale"""
    x: Any = context.operand(node.inputs[place])
    if all(v is None or isinstance(v, Constant) for v in (x, scale, zero)):
        assert isinstance(x, Constant)
        return remembered(node, x, scale, zero, node.inputs[place].dtype, axis)
    blob: Blob = context.stored(x) if isinstance(x, Constant) else x
    if zero is not None:
        blob = emit(context, "subtractBroadcastable", blob, along(context, blob, zero, axis))
    if scale is _ONE:
        return blob
    return emit(context, "multiplyBroadcastable", blob, along(context, blob, scale, axis))


def _zero(operands: Any, place: int) -> Any:
    return operands[place] if len(operands) > place else None


@op("MatMulInteger", raw=True)
def matmul_integer(context: Lowering, node: Node, *operands: Any) -> Blob:
    """Zero points of A go along its rows, those of B along its columns."""
    a = _floats(context, node, 0, _ONE, _zero(operands, 2), -2)
    b = _floats(context, node, 1, _ONE, _zero(operands, 3), -1)
    made: Blob = matmul(context, node, a, b)
    return made


@op("ConvInteger", raw=True)
def conv_integer(context: Lowering, node: Node, *operands: Any) -> Blob:
    x = _floats(context, node, 0, _ONE, _zero(operands, 2), 1)
    w = _floats(context, node, 1, _ONE, _zero(operands, 3), 0)
    made: Blob = conv(context, node, x, w)
    return made


@op("QLinearMatMul", raw=True)
def qlinear_matmul(context: Lowering, node: Node, *operands: Any) -> Blob:
    _, a_scale, a_zero, _, b_scale, b_zero, y_scale, y_zero = operands
    a = _floats(context, node, 0, a_scale, a_zero, -2)
    b = _floats(context, node, 3, b_scale, b_zero, -1)
    made: Blob = quantize_linear(context, node, matmul(context, node, a, b), y_scale, y_zero)
    return made


@op("QLinearConv", raw=True)
def qlinear_conv(context: Lowering, node: Node, *operands: Any) -> Blob:
    """The bias has the scale of the products."""
    _, x_scale, x_zero, _, w_scale, w_zero, y_scale, y_zero, *rest = operands
    x = _floats(context, node, 0, x_scale, x_zero, 1)
    w = _floats(context, node, 3, w_scale, w_zero, 0)
    bias = None
    if rest and rest[0] is not None:
        if not all(isinstance(v, Constant) for v in (rest[0], x_scale, w_scale)):
            raise ConversionError("a bias or scale that is computed")
        step = x_scale.array.ravel() * w_scale.array.ravel()
        bias = Constant("", (rest[0].array * step).astype(np.float32))
    made: Blob = quantize_linear(context, node, conv(context, node, x, w, bias), y_scale, y_zero)
    return made
