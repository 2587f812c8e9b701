"""Products of quantized values: computed on the floats that they stand for.

Sums of products of 8-bit integers are exact in float32 up to 2**24; the rounding that ends a
quantized op follows, so that a result may be one step off where it lies between two.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Attributes, Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.convolution import conv
from mlferry.converters.onnx.ops.linear import gemm, matmul
from mlferry.converters.onnx.ops.normalization import softmax_1, softmax_13
from mlferry.converters.onnx.ops.pooling import pool
from mlferry.converters.onnx.ops.quantization import along, quantize_linear, remembered, rounded
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    array_of,
    as_blob,
    channels_first,
    channels_last,
    joined,
    positive,
)
from mlferry.converters.values import Blob, Constant, Operand, blob_of
from mlferry.errors import ConversionError

_ONE = Constant("", np.ones((), np.float32))


def floats(
    context: Lowering,
    node: Node,
    place: int,
    scale: Operand | None,
    zero: Operand | None,
    axis: int,
) -> Operand:
    """(x - zero point) * scale"""
    x = context.operand(node.inputs[place])
    if not isinstance(x, Operand) or scale is None:
        raise ConversionError(f"input {place} is missing, or its scale")
    if isinstance(x, Constant) and isinstance(scale, Constant) and not isinstance(zero, Blob):
        return remembered(node, x, scale, zero, node.inputs[place].dtype, axis)
    blob = as_blob(context, x)
    if zero is not None:
        blob = context.subtract(blob, along(context, blob, zero, axis))
    if scale is _ONE:
        return blob
    return context.multiply(blob, along(context, blob, scale, axis))


def _zero(operands: Sequence[Operand | None], place: int) -> Operand | None:
    return operands[place] if len(operands) > place else None


@op("MatMulInteger", raw=True)
def matmul_integer(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """A has zero points for its rows, B for its columns."""
    a = floats(context, node, 0, _ONE, _zero(operands, 2), -2)
    b = floats(context, node, 1, _ONE, _zero(operands, 3), -1)
    return matmul(context, node, a, b)


@op("ConvInteger", raw=True)
def conv_integer(context: Lowering, node: Node, *operands: Operand) -> Blob:
    x = floats(context, node, 0, _ONE, _zero(operands, 2), 1)
    weights = floats(context, node, 1, _ONE, _zero(operands, 3), 0)
    return conv(context, node, x, weights)


@op("QLinearMatMul", raw=True)
def qlinear_matmul(context: Lowering, node: Node, *operands: Operand) -> Blob:
    _, a_scale, a_zero, _, b_scale, b_zero, y_scale, y_zero = operands
    a = floats(context, node, 0, a_scale, a_zero, -2)
    b = floats(context, node, 3, b_scale, b_zero, -1)
    return quantize_linear(context, node, matmul(context, node, a, b), y_scale, y_zero)


@op("QLinearConv", "com.microsoft.QLinearConv", raw=True)
def qlinear_conv(context: Lowering, node: Node, *operands: Operand | None) -> Blob:
    """The bias has the scale of the products; with onnxruntime's option, channels are last."""
    last = bool(node.attrs.get("channels_last", 0))
    _, x_scale, x_zero, _, w_scale, w_zero, y_scale, y_zero, *rest = operands
    x = floats(context, node, 0, x_scale, x_zero, 1)
    if last:
        x = channels_first(context, as_blob(context, x))
    weights = floats(context, node, 3, w_scale, w_zero, 0)
    bias = None
    if rest and rest[0] is not None:
        fixed = [v.array for v in (rest[0], x_scale, w_scale) if isinstance(v, Constant)]
        if len(fixed) < 3:
            raise ConversionError("a bias or scale that is computed")
        step = fixed[1].ravel() * fixed[2].ravel()
        bias = Constant("", (fixed[0] * step).astype(np.float32))
    output = conv(context, node, x, weights, bias)
    output = channels_last(context, output) if last else output
    return _quantized(context, node, output, y_scale, y_zero)


# ---- onnxruntime's own -----------------------------------------------------------------


def _quantized(
    context: Lowering, node: Node, x: Blob, scale: Operand | None, zero: Operand | None
) -> Blob:
    if scale is None:
        raise ConversionError("the scale of the output is missing")
    return quantize_linear(context, node, x, scale, zero)


@op("com.microsoft.QGemm", raw=True)
def qgemm(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """The bias has the scale of the products; without a scale the result stays float."""
    _, a_scale, a_zero, _, b_scale, b_zero, bias, y_scale, y_zero = (*operands, None, None)[:9]
    turned = bool(node.attrs.get("transB", 0))
    a = floats(context, node, 0, a_scale, a_zero, 0)
    b = floats(context, node, 3, b_scale, b_zero, 0 if turned else 1)
    alpha, shift = node.attrs.get("alpha", 1.0), None
    if bias is not None:
        step = _step(alpha, a_scale, b_scale)
        shift = Constant("", (array_of(node, 6, bias) * step).astype(np.float32))
    output: Blob = gemm(context, node, a, b, shift)
    return output if y_scale is None else _quantized(context, node, output, y_scale, y_zero)


def _step(factor: float, *scales: Operand | None) -> NDArray[np.float32]:
    """The product of constant scales."""
    steps = [s.floats.ravel() for s in scales if isinstance(s, Constant)]
    if len(steps) < len(scales):
        raise ConversionError("a bias whose scale is computed")
    return functools.reduce(np.multiply, steps, np.array(factor, np.float32))


@op("com.microsoft.MatMulIntegerToFloat", raw=True)
def matmul_integer_to_float(context: Lowering, node: Node, *operands: Operand) -> Blob:
    _, _, a_scale, b_scale, a_zero, b_zero, bias = (*operands, None, None, None)[:7]
    a = floats(context, node, 0, a_scale, a_zero, -1)
    b = floats(context, node, 1, b_scale, b_zero, -1)
    output = matmul(context, node, a, b)
    return output if bias is None else context.add(output, as_blob(context, bias))


@op("com.microsoft.DynamicQuantizeMatMul", raw=True)
def dynamic_quantize_matmul(context: Lowering, node: Node, x: Operand, *operands: Operand) -> Blob:
    """Rounds the activations to 8 bits by their own range."""
    _, b_scale, b_zero, bias = (*operands, None, None)[:4]
    a = rounded(context, as_blob(context, x))
    b = floats(context, node, 1, b_scale, b_zero, -1)
    output = matmul(context, node, a, b)
    return output if bias is None else context.add(output, as_blob(context, bias))


_ARITHMETIC = {
    "com.microsoft.QLinearAdd": "addBroadcastable",
    "com.microsoft.QLinearMul": "multiplyBroadcastable",
}


@op(*_ARITHMETIC, raw=True)
def qlinear_binary(context: Lowering, node: Node, *operands: Operand) -> Blob:
    _, a_scale, a_zero, _, b_scale, b_zero, y_scale, y_zero = (*operands, None)[:8]
    a = as_blob(context, floats(context, node, 0, a_scale, a_zero, 0))
    b = as_blob(context, floats(context, node, 3, b_scale, b_zero, 0))
    output = context.emit(_ARITHMETIC[node.op], a, b)
    return _quantized(context, node, output, y_scale, y_zero)


@op("com.microsoft.QLinearConcat", raw=True)
def qlinear_concat(
    context: Lowering, node: Node, y_scale: Operand, y_zero: Operand, *parts: Operand
) -> Blob:
    """The scale and the zero point of each part follow it."""
    blobs = [
        as_blob(context, floats(context, node, place, parts[place - 1], parts[place], 0))
        for place in range(2, 2 + len(parts), 3)
    ]
    axis = positive(node.attrs["axis"], blobs[0].rank)
    return _quantized(context, node, joined(context, blobs, axis), y_scale, y_zero)


@op("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu", raw=True)
def qlinear_activation(context: Lowering, node: Node, *operands: Operand) -> Blob:
    _, x_scale, x_zero, y_scale, y_zero = (*operands, None)[:5]
    x = as_blob(context, floats(context, node, 0, x_scale, x_zero, 0))
    leaky = node.op == "com.microsoft.QLinearLeakyRelu"
    activation: dict[str, Any] = (
        {"leakyReLU": {"alpha": node.attrs.get("alpha", 0.01)}} if leaky else {"sigmoid": {}}
    )
    return _quantized(context, node, context.emit("activation", x, **activation), y_scale, y_zero)


@op("com.microsoft.QLinearSoftmax", raw=True)
def qlinear_softmax(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """Over all axes from `axis` on before opset 13."""
    _, x_scale, x_zero, y_scale, y_zero = (*operands, None)[:5]
    x = as_blob(context, floats(context, node, 0, x_scale, x_zero, 0))
    attributes = Attributes({"axis": node.attrs.get("axis", -1)})
    softmax = softmax_1 if node.attrs["opset"] < 13 else softmax_13
    output = softmax(context, replace(node, op="Softmax", attrs=attributes), x)
    return _quantized(context, node, output, y_scale, y_zero)


@op("com.microsoft.QLinearAveragePool", "com.microsoft.QLinearGlobalAveragePool", raw=True)
def qlinear_pool(context: Lowering, node: Node, *operands: Operand) -> Blob:
    _, x_scale, x_zero, y_scale, y_zero = (*operands, None)[:5]
    x = as_blob(context, floats(context, node, 0, x_scale, x_zero, 0))
    last = bool(node.attrs.get("channels_last", 0))
    x = channels_first(context, x) if last else x
    if node.op == "com.microsoft.QLinearGlobalAveragePool":
        axes = tuple(range(2, x.rank))
        output: Blob = context.reduce("reduceMean", x, axes)
    else:
        if node.attrs.get("ceil_mode", 0) and node.attrs.get("count_include_pad", 0):
            raise ConversionError(
                "ceil_mode with count_include_pad: onnxruntime divides the last windows by "
                "another number than the standard"
            )
        output = blob_of(pool(context, replace(node, op="AveragePool"), x))
    output = channels_last(context, output) if last else output
    return _quantized(context, node, output, y_scale, y_zero)


@op("com.microsoft.NhwcMaxPool")
def nhwc_max_pool(context: Lowering, node: Node, x: Blob) -> Blob:
    """Takes integers with channels last."""
    output = blob_of(pool(context, replace(node, op="MaxPool"), channels_first(context, x)))
    return channels_last(context, output)


@op("com.microsoft.QLinearWhere", raw=True)
def qlinear_where(context: Lowering, node: Node, condition: Operand, *operands: Operand) -> Blob:
    _, x_scale, x_zero, _, y_scale, y_zero, z_scale, z_zero = operands
    x = as_blob(context, floats(context, node, 1, x_scale, x_zero, 0))
    y = as_blob(context, floats(context, node, 4, y_scale, y_zero, 0))
    output = context.where(as_blob(context, condition), x, y)
    return _quantized(context, node, output, z_scale, z_zero)
