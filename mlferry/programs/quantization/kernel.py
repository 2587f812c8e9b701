"""Values of eight bits that stand for others."""

from __future__ import annotations

import numpy as np

from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.types import DTYPES


def _along(value: float | Array | None, x: Array, axis: int | None) -> Array:
    array = np.asarray(0 if value is None else value, np.float32)
    if array.size == 1 or axis is None:
        return array.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return array.reshape(shape)


@kernel("quantize")
def quantize(
    call: Call,
    input: Array,
    scale: float | Array,
    zero_point: float | Array | None,
    axis: int | None,
    output_dtype: str,
) -> Array:
    """Halves are rounded to even."""
    limits = np.iinfo(DTYPES[output_dtype].array)
    codes = np.rint(input / _along(scale, input, axis)) + _along(zero_point, input, axis)
    return np.clip(codes, limits.min, limits.max)


@kernel("dequantize")
def dequantize(
    call: Call,
    input: Array,
    scale: float | Array,
    zero_point: float | Array | None,
    axis: int | None,
) -> Array:
    return _along(scale, input, axis) * (input.astype(np.float32) - _along(zero_point, input, axis))
