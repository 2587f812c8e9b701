"""Layers that multiply by a matrix or a vector, and those that hold constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.methods.table import Params, method
from mlferry.layers.methods.values import floats, quantization_of, quantized, reordered

_QUANTIZED = (
    "is_quantized_weight=False, quantization_type='linear', nbits=8, quant_scale=None, "
    "quant_bias=None, quant_lut=None"
)


@method(
    "add_inner_product(name, W, b, input_channels, output_channels, has_bias, input_name, "
    f"output_name, int_8_dynamic_quantize=False, {_QUANTIZED})"
)
def _inner_product(given: Any) -> Params:
    """`W` is [output_channels, input_channels], or packed bits of quantized weights."""
    int8 = given.int_8_dynamic_quantize
    plain = not given.is_quantized_weight and not isinstance(given.W, bytes)
    return {
        "inputChannels": given.input_channels,
        "outputChannels": given.output_channels,
        "hasBias": given.has_bias,
        "int8DynamicQuantize": int8,
        "weights": floats(given.W)
        if plain
        else quantized(given.W, given.output_channels, int8=int8, **quantization_of(given)),
        "bias": floats(given.b) if given.has_bias else None,
    }


@method(
    "add_embedding(name, W, b, input_dim, output_channels, has_bias, input_name, output_name, "
    f"{_QUANTIZED})"
)
def _embedding(given: Any) -> Params:
    """`W` is [output_channels, input_dim], or packed bits of quantized weights."""
    return {
        "inputDim": given.input_dim,
        "outputChannels": given.output_channels,
        "hasBias": given.has_bias,
        "weights": _weights(given, given.output_channels),
        "bias": floats(given.b) if given.has_bias else None,
    }


@method(
    "add_embedding_nd(name, input_name, output_name, vocab_size, embedding_size, W, b=None, "
    f"{_QUANTIZED})"
)
def _embedding_nd(given: Any) -> Params:
    """`W` is [embedding_size, vocab_size], or packed bits of quantized weights."""
    return {
        "vocabSize": given.vocab_size,
        "embeddingSize": given.embedding_size,
        "hasBias": given.b is not None,
        "weights": _weights(given, given.embedding_size),
        "bias": floats(given.b),
    }


def _weights(given: Any, channels: int) -> Any:
    if not given.is_quantized_weight:
        return floats(given.W)
    return quantized(given.W, channels, **quantization_of(given))


@method(
    "add_batched_mat_mul(name, input_names, output_name, transpose_a=False, transpose_b=False, "
    "weight_matrix_rows=0, weight_matrix_columns=0, W=None, bias=None, "
    f"int_8_dynamic_quantize=False, {_QUANTIZED})",
    kind="batchedMatmul",
)
def _batched_mat_mul(given: Any) -> Params:
    """`W` is [rows, columns], or packed bits of quantized weights; two inputs take none."""
    count = 1 if isinstance(given.input_names, str) else len(given.input_names)
    if count == 1 and given.W is None:
        raise SpecError("one input is multiplied by W, which is missing")
    if count > 1 and (given.W is not None or given.bias is not None):
        raise SpecError("two inputs are multiplied by each other: leave W and bias out")
    params = {
        "transposeA": given.transpose_a,
        "transposeB": given.transpose_b,
        "int8DynamicQuantize": given.int_8_dynamic_quantize,
    }
    if count > 1:
        return params
    shape = given.weight_matrix_rows, given.weight_matrix_columns
    by_bits = given.is_quantized_weight
    W = reordered(given.W, shape, (1, 0), given.nbits, quantized_=by_bits)
    int8 = given.int_8_dynamic_quantize
    return params | {
        "weightMatrixFirstDimension": given.weight_matrix_rows,
        "weightMatrixSecondDimension": given.weight_matrix_columns,
        "hasBias": given.bias is not None,
        "weights": quantized(W, shape[1], int8=int8, **quantization_of(given)) if by_bits else W,
        "bias": floats(given.bias),
    }


@method(
    "add_scale(name, W, b, has_bias, input_name, output_name, shape_scale=None, shape_bias=None)"
)
def _scale(given: Any) -> Params:
    """`W` and `b` are numbers or arrays; their shapes are [1], [C] or [C, H, W]."""
    params: Params = {"hasBias": given.has_bias}
    params |= _shaped("scale", given.W, "shapeScale", given.shape_scale)
    return params | (
        _shaped("bias", given.b, "shapeBias", given.shape_bias) if given.has_bias else {}
    )


@method("add_bias(name, b, input_name, output_name, shape_bias=None)")
def _bias(given: Any) -> Params:
    """`b` is a number or an array, of shape [1], [C] or [C, H, W]."""
    if given.shape_bias and len(given.shape_bias) not in (1, 3):
        raise SpecError(f"shape_bias has 1 or 3 axes, not {len(given.shape_bias)}")
    return _shaped("bias", given.b, "shape", given.shape_bias)


@method("add_load_constant(name, output_name, constant_value, shape)")
def _load_constant(given: Any) -> Params:
    """`constant_value` is an array; its shape is [C, H, W] in the classic mapping."""
    return _shaped("data", given.constant_value, "shape", given.shape)


@method("add_load_constant_nd(name, output_name, constant_value, shape)")
def _load_constant_nd(given: Any) -> Params:
    """`constant_value` is an array, which is read in this shape."""
    return _shaped("data", given.constant_value, "shape", given.shape)


def _shaped(field: str, value: Any, shape_field: str, shape: Any) -> Params:
    """An array and the shape that the layer reads it in."""
    array = np.atleast_1d(floats(value))
    wanted = list(shape) if shape else [1]
    if array.size != np.prod(wanted):
        raise SpecError(f"{array.size} values do not fill the shape {wanted}")
    return {field: array, shape_field: wanted}
