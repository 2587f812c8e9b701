"""Layers that multiply by a matrix or a vector, and those that hold constants."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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
def _inner_product(arguments: SimpleNamespace) -> Params:
    """`W` is [output_channels, input_channels], or packed bits of quantized weights."""
    int8 = arguments.int_8_dynamic_quantize
    plain = not arguments.is_quantized_weight and not isinstance(arguments.W, bytes)
    return {
        "inputChannels": arguments.input_channels,
        "outputChannels": arguments.output_channels,
        "hasBias": arguments.has_bias,
        "int8DynamicQuantize": int8,
        "weights": floats(arguments.W)
        if plain
        else quantized(
            arguments.W, arguments.output_channels, int8=int8, **quantization_of(arguments)
        ),
        "bias": floats(arguments.b) if arguments.has_bias else None,
    }


@method(
    "add_embedding(name, W, b, input_dim, output_channels, has_bias, input_name, output_name, "
    f"{_QUANTIZED})"
)
def _embedding(arguments: SimpleNamespace) -> Params:
    """`W` is [output_channels, input_dim], or packed bits of quantized weights."""
    return {
        "inputDim": arguments.input_dim,
        "outputChannels": arguments.output_channels,
        "hasBias": arguments.has_bias,
        "weights": _weights(arguments, arguments.output_channels),
        "bias": floats(arguments.b) if arguments.has_bias else None,
    }


@method(
    "add_embedding_nd(name, input_name, output_name, vocab_size, embedding_size, W, b=None, "
    f"{_QUANTIZED})"
)
def _embedding_nd(arguments: SimpleNamespace) -> Params:
    """`W` is [embedding_size, vocab_size], or packed bits of quantized weights."""
    return {
        "vocabSize": arguments.vocab_size,
        "embeddingSize": arguments.embedding_size,
        "hasBias": arguments.b is not None,
        "weights": _weights(arguments, arguments.embedding_size),
        "bias": floats(arguments.b),
    }


def _weights(arguments: SimpleNamespace, channels: int) -> Any:
    if not arguments.is_quantized_weight:
        return floats(arguments.W)
    return quantized(arguments.W, channels, **quantization_of(arguments))


@method(
    "add_batched_mat_mul(name, input_names, output_name, transpose_a=False, transpose_b=False, "
    "weight_matrix_rows=0, weight_matrix_columns=0, W=None, bias=None, "
    f"int_8_dynamic_quantize=False, {_QUANTIZED})",
    kind="batchedMatmul",
)
def _batched_mat_mul(arguments: SimpleNamespace) -> Params:
    """`W` is [rows, columns], or packed bits of quantized weights; two inputs take none."""
    count = 1 if isinstance(arguments.input_names, str) else len(arguments.input_names)
    if count == 1 and arguments.W is None:
        raise SpecError("one input is multiplied by W, which is missing")
    if count > 1 and (arguments.W is not None or arguments.bias is not None):
        raise SpecError("two inputs are multiplied by each other: leave W and bias out")
    params = {
        "transposeA": arguments.transpose_a,
        "transposeB": arguments.transpose_b,
        "int8DynamicQuantize": arguments.int_8_dynamic_quantize,
    }
    if count > 1:
        return params
    shape = arguments.weight_matrix_rows, arguments.weight_matrix_columns
    by_bits = arguments.is_quantized_weight
    W = reordered(arguments.W, shape, (1, 0), arguments.nbits, quantized_=by_bits)
    int8 = arguments.int_8_dynamic_quantize
    return params | {
        "weightMatrixFirstDimension": arguments.weight_matrix_rows,
        "weightMatrixSecondDimension": arguments.weight_matrix_columns,
        "hasBias": arguments.bias is not None,
        "weights": quantized(W, shape[1], int8=int8, **quantization_of(arguments))
        if by_bits
        else W,
        "bias": floats(arguments.bias),
    }


@method(
    "add_scale(name, W, b, has_bias, input_name, output_name, shape_scale=None, shape_bias=None)"
)
def _scale(arguments: SimpleNamespace) -> Params:
    """`W` and `b` are numbers or arrays; their shapes are [1], [C] or [C, H, W]."""
    params: Params = {"hasBias": arguments.has_bias}
    params |= _shaped("scale", arguments.W, "shapeScale", arguments.shape_scale)
    return params | (
        _shaped("bias", arguments.b, "shapeBias", arguments.shape_bias)
        if arguments.has_bias
        else {}
    )


@method("add_bias(name, b, input_name, output_name, shape_bias=None)")
def _bias(arguments: SimpleNamespace) -> Params:
    """`b` is a number or an array, of shape [1], [C] or [C, H, W]."""
    if arguments.shape_bias and len(arguments.shape_bias) not in (1, 3):
        raise SpecError(f"shape_bias has 1 or 3 axes, not {len(arguments.shape_bias)}")
    return _shaped("bias", arguments.b, "shape", arguments.shape_bias)


@method("add_load_constant(name, output_name, constant_value, shape)")
def _load_constant(arguments: SimpleNamespace) -> Params:
    """`constant_value` is an array; its shape is [C, H, W] in the classic mapping."""
    return _shaped("data", arguments.constant_value, "shape", arguments.shape)


@method("add_load_constant_nd(name, output_name, constant_value, shape)")
def _load_constant_nd(arguments: SimpleNamespace) -> Params:
    """`constant_value` is an array, read in this shape."""
    return _shaped("data", arguments.constant_value, "shape", arguments.shape)


def _shaped(field: str, value: ArrayLike, shape_field: str, shape: Sequence[int] | None) -> Params:
    """An array and the shape that the layer reads it in."""
    array = np.atleast_1d(floats(value))
    target = list(shape) if shape else [1]
    if array.size != np.prod(target):
        raise SpecError(f"{array.size} values do not fill the shape {target}")
    return {field: array, shape_field: target}
