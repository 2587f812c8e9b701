"""Values of eight bits that stand for others."""

from __future__ import annotations

import numpy as np

from mlferry.onnx_graph.emitter import Emitter
from mlferry.programs.exports import Call, cast, export
from mlferry.programs.types import DTYPES, Array


def _along(emitter: Emitter, value: float | Array | None, x: str, axis: int | None) -> str:
    array = np.asarray(0 if value is None else value, np.float32)
    if array.size == 1 or axis is None:
        return emitter.constant(array.reshape(()))
    shape = [1] * emitter.rank(x)
    shape[axis] = -1
    return emitter.constant(array.reshape(shape))


@export("quantize")
def quantize(
    emitter: Emitter,
    call: Call,
    input: str,
    scale: float | Array,
    zero_point: float | Array | None,
    axis: int | None,
    output_dtype: str,
) -> str:
    """Halves are rounded to even."""
    limits = np.iinfo(DTYPES[output_dtype].array)
    codes = emitter.node("Div", input, _along(emitter, scale, input, axis))
    codes = emitter.node("Round", codes)
    codes = emitter.node("Add", codes, _along(emitter, zero_point, input, axis))
    codes = emitter.node("Clip", codes, emitter.number(limits.min), emitter.number(limits.max))
    return cast(emitter, codes, "int32")


@export("dequantize")
def dequantize(
    emitter: Emitter,
    call: Call,
    input: str,
    scale: float | Array,
    zero_point: float | Array | None,
    axis: int | None,
) -> str:
    y = cast(emitter, input, "float32")
    y = emitter.node("Sub", y, _along(emitter, zero_point, input, axis))
    return emitter.node("Mul", y, _along(emitter, scale, input, axis))
