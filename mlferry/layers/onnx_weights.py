"""Stored weights as constants of a graph; quantized ones stay quantized.

Linear quantization becomes `DequantizeLinear` of uint8 values, with an `Add` if the bias is not a
multiple of the scale; a lookup table becomes a `Gather` from the table; half precision a `Cast`.
onnxruntime computes these once, when it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Array
from mlferry.onnx_graph.emitter import FLOAT, INT32, Emitter
from mlferry.spec import weights

_ZERO_POINT_MOST = 255


def weight(
    emitter: Emitter,
    params: Params,
    field: str,
    shape: Sequence[int],
    *,
    channel_axis: int = 0,
    axes: Sequence[int] | None = None,
) -> str:
    """A weight of a layer as a float32 value.

    Args:
        shape: its stored shape.
        channel_axis: the axis along which several scales go.
        axes: the order of the axes of the result.

    Raises:
        SpecError: the number of stored values does not fit.
    """
    message = getattr(params.message, field)
    order = tuple(range(len(shape))) if axes is None else tuple(axes)
    hint = f"{emitter.layer}.{field}"
    encoding = weights.encoding(message)
    if encoding is None or encoding.kind == weights.FLOAT32:
        return emitter.constant(_moved(params.weight(field, shape), order), hint)
    try:
        if encoding.kind == weights.FLOAT16:
            half = weights.half(message, shape)
            return emitter.node("Cast", emitter.constant(_moved(half, order), hint), to=FLOAT)
        parts = weights.parts(message, shape, channel_axis=channel_axis)
    except SpecError as error:
        error.add_context(f"reading {field} of {params.kind} {params.name!r}")
        raise
    indices = emitter.constant(_moved(parts.indices, order), hint)
    if isinstance(parts, weights.Lookup):
        wide = emitter.node("Cast", indices, to=INT32)  # bytes in the file; Gather takes int32
        y = emitter.node("Gather", emitter.constant(parts.table, f"{hint}.table"), wide)
        emitter.shapes[y] = emitter.shapes[indices]
        return y
    return _linear(emitter, parts, indices, order.index(channel_axis % max(1, len(order))), hint)


def _moved(array: Array, order: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(array.transpose(order))


def _linear(emitter: Emitter, parts: weights.Linear, indices: str, axis: int, hint: str) -> str:
    shape = emitter.shape(indices)
    scale, bias = parts.scale, parts.bias
    if scale.size == 1:
        scale = scale.reshape(())
    zero_point = _zero_point(parts)
    inputs = [indices, emitter.constant(scale, f"{hint}.scale")]
    if zero_point is not None and zero_point.any():
        inputs.append(emitter.constant(zero_point.reshape(scale.shape), f"{hint}.zero_point"))
    y = emitter.node("DequantizeLinear", *inputs, axis=axis if scale.ndim else None)
    emitter.shapes[y] = shape
    if zero_point is not None:
        return y
    along = [-1 if index == axis else 1 for index in range(len(shape))]
    spread = bias.reshape(() if bias.size == 1 else along)
    return emitter.node("Add", y, emitter.constant(spread, f"{hint}.bias"))


def _zero_point(parts: weights.Linear) -> Array | None:
    """The bias as a whole number of steps, if it is one exactly."""
    kind = parts.indices.dtype
    if not parts.bias.size:
        return np.zeros(parts.scale.shape, kind)
    if kind != np.uint8 or parts.bias.size != parts.scale.size or not parts.scale.all():
        return None
    steps = np.round(-parts.bias / parts.scale)
    exact = np.array_equal(-steps * parts.scale, parts.bias)
    if not exact or steps.min() < 0 or steps.max() > _ZERO_POINT_MOST:
        return None
    return steps.astype(np.uint8)
