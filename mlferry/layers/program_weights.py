"""Stored weights as constants of a program; quantized ones stay quantized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.params import Params
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.compressed import Compressed, looked_up, scaled, table_bits
from mlferry.programs.graph import Array, Value, constant
from mlferry.spec import mapped, weights


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

    Lookup tables stay tables, and linear codes of 8 bits stay codes if their bias is a whole number
    of steps; others are decoded.

    Args:
        shape: its stored shape.
        channel_axis: the axis along which several scales go.
        axes: the order of the axes of the result.
        reshaped: the shape of the result, after reordering, if it is different; quantized values
            with several scales are then decoded.

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
        result: Value | None = None
        if isinstance(parts, weights.Lookup):
            result = _looked_up(builder, codes, parts)
        elif reshaped is None or parts.scale.size == 1:
            result = _scaled(builder, codes, parts, order.index(channel_axis % max(1, len(order))))
        if result is not None:
            return result
    array = _moved(params.decoded(field, shape, channel_axis=channel_axis), order, reshaped)
    return constant(array, "fp32", hint)


def _moved(array: Array, order: tuple[int, ...], reshaped: Sequence[int] | None) -> Array:
    moved = array.transpose(order)
    if mapped.map_of(array) is None:
        moved = np.ascontiguousarray(moved)
    result: Array = moved if reshaped is None else moved.reshape(reshaped)
    return result


def _looked_up(builder: ProgramBuilder, codes: Array, parts: weights.Lookup) -> Value | None:
    bits = max(1, int(len(parts.table) - 1).bit_length())
    wider = next((n for n in table_bits(builder.opset) if n >= bits), None)
    if wider is None or codes.size < 2:
        return None
    table = np.zeros(2**wider, np.float32)
    table[: len(parts.table)] = parts.table
    return _added(builder, looked_up(builder.opset, codes, table, wider, "fp32"))


def _scaled(
    builder: ProgramBuilder, codes: Array, parts: weights.Linear, axis: int
) -> Value | None:
    """8-bit codes with their scales; None if the format cannot hold the bias."""
    scale, bias = parts.scale, parts.bias
    steps = np.zeros(scale.shape, np.float32)
    if bias.size:
        if bias.size != scale.size or not scale.all():
            return None
        steps = np.round(-bias / scale)
        if not np.array_equal(-steps * scale, bias):
            return None
    limits = np.iinfo(codes.dtype)
    if codes.itemsize != 1 or steps.min() < limits.min or steps.max() > limits.max:
        return None
    spread = [1] * codes.ndim
    if scale.size > 1:
        spread[axis] = -1
    zero_point = steps.astype(codes.dtype).reshape(spread)
    result = scaled(builder.opset, codes, scale.reshape(spread), zero_point, 8, "fp32")
    return _added(builder, result)


def _added(builder: ProgramBuilder, compressed: Compressed) -> Value:
    arguments: dict[str, Any] = dict(compressed.arguments)
    return builder.op(compressed.op, **arguments)
