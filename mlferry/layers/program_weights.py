"""Stored weights as constants of a program; quantized ones stay quantized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.params import Params
from mlferry.numerics.bits import packed
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Array, Value, constant
from mlferry.spec import weights

_TABLE_BITS = (1, 2, 4, 6, 8)  # of `constexpr_lut_to_dense`


def weight(
    builder: ProgramBuilder,
    params: Params,
    field: str,
    shape: Sequence[int],
    *,
    channel_axis: int = 0,
    axes: Sequence[int] | None = None,
    reshaped: Sequence[int] | None = None,
) -> Value:
    """A weight of a layer as a float32 value.

    Lookup tables stay tables, and linear codes of 8 bits stay codes where their bias is a whole
    number of steps; others are restored.

    Args:
        builder: what writes.
        params: the layer's parameters, or a part of them.
        field: which weight.
        shape: its stored shape.
        channel_axis: the axis along which several scales go.
        axes: the order of the axes of the result.
        reshaped: the shape of the result, after that order, where it is another one; quantized
            values with several scales are restored for it.

    Raises:
        SpecError: the number of stored values does not fit.
    """
    message = getattr(params.message, field)
    order = tuple(range(len(shape))) if axes is None else tuple(axes)
    hint = f"{builder.layer}_{field}"
    encoding = weights.encoding(message)
    floats = encoding is None or encoding.kind in (weights.FLOAT32, weights.FLOAT16)
    if not floats:
        try:
            parts = weights.parts(message, shape, channel_axis=channel_axis)
        except SpecError as error:
            error.add_context(f"reading {field} of {params.kind} {params.name!r}")
            raise
        codes = _moved(parts.indices, order, reshaped)
        made: Value | None = None
        if isinstance(parts, weights.Lookup):
            made = _looked_up(builder, codes, parts)
        elif reshaped is None or parts.scale.size == 1:
            made = _scaled(builder, codes, parts, order.index(channel_axis % max(1, len(order))))
        if made is not None:
            return made
    array = _moved(params.decoded(field, shape, channel_axis=channel_axis), order, reshaped)
    return constant(array, "fp32", hint)


def _moved(array: Array, order: tuple[int, ...], reshaped: Sequence[int] | None) -> Array:
    moved = np.ascontiguousarray(array.transpose(order))
    return moved if reshaped is None else moved.reshape(reshaped)


def _looked_up(builder: ProgramBuilder, codes: Array, parts: weights.Lookup) -> Value | None:
    bits = max(1, int(len(parts.table) - 1).bit_length())
    wider = next((n for n in _TABLE_BITS if n >= bits), None)
    if wider is None or codes.size < 2:
        return None
    table = np.zeros(2**wider, np.float32)
    table[: len(parts.table)] = parts.table
    if builder.opset >= 8:
        rank = (1,) * codes.ndim
        return builder.op(
            "constexpr_lut_to_dense",
            indices=constant(codes, f"uint{wider}"),
            lut=constant(table.reshape(*rank, -1, 1), "fp32"),
        )
    indices: Any = codes.reshape(-1)
    if wider < 8:
        indices = np.frombuffer(packed(indices, wider), np.uint8)
    return builder.op(
        "constexpr_lut_to_dense",
        indices=constant(indices, "uint8"),
        lut=constant(table, "fp32"),
        shape=constant(np.array(codes.shape, np.uint32), "uint32"),
    )


def _scaled(
    builder: ProgramBuilder, codes: Array, parts: weights.Linear, axis: int
) -> Value | None:
    """Codes of a byte with their scales; None where the format cannot hold the bias."""
    scale, bias = parts.scale, parts.bias
    steps = np.zeros(scale.shape, np.float32)
    if bias.size:
        if bias.size != scale.size or not scale.all():
            return None
        steps = np.round(-bias / scale)
        if not np.array_equal(-steps * scale, bias):
            return None
    dtype = str(codes.dtype)
    limits = np.iinfo(codes.dtype)
    if dtype not in ("uint8", "int8") or steps.min() < limits.min or steps.max() > limits.max:
        return None
    zero_point = steps.astype(codes.dtype)
    if scale.size == 1:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    if builder.opset >= 8:
        spread = [-1 if i == axis else 1 for i in range(codes.ndim)] if scale.ndim else (
            [1] * codes.ndim
        )  # fmt: skip
        return builder.op(
            "constexpr_blockwise_shift_scale",
            data=constant(codes, dtype),
            scale=constant(scale.reshape(spread).astype(np.float32), "fp32"),
            offset=constant(zero_point.reshape(spread), dtype) if zero_point.any() else None,
        )
    return builder.op(
        "constexpr_affine_dequantize",
        quantized_data=constant(codes, dtype),
        zero_point=constant(zero_point, dtype),
        scale=constant(scale.astype(np.float32), "fp32"),
        axis=constant(np.int32(axis), "int32"),
    )
