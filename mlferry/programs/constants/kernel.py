"""Compressed constants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.errors import SpecError
from mlferry.numerics.bits import unpacked
from mlferry.programs.constants.definition import blocks_fit, looked_up
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries

Ints = tuple[int, ...]


def _checked(shape: Ints) -> int:
    count = math.prod(shape)
    limits.check("weights", 4 * count, f"a constant of shape {shape} takes bytes:")
    return count


@kernel("constexpr_affine_dequantize")
def affine_dequantize(
    call: Call, quantized_data: Array, zero_point: float | Array, scale: float | Array, axis: int
) -> Array:
    data = quantized_data.astype(np.float32)
    shape = [1] * data.ndim
    shape[axis] = -1
    zero, factor = (
        np.asarray(v, np.float32).reshape(shape if np.ndim(v) else ()) for v in (zero_point, scale)
    )
    return (data - zero) * factor


@kernel("constexpr_cast")
def cast(call: Call, source_val: float | Array, output_dtype: str) -> float | Array:
    return np.asarray(source_val, np.float32)[()]


def _look_up(indices: Array, table: Array, axis: int | None) -> Array:
    """table is [..groups.., entries, vector]."""
    shape, groups = indices.shape, table.shape[:-2]
    whole = looked_up(shape, table.shape, axis)
    _checked(tuple(extent or 0 for extent in whole))
    if indices.size and int(indices.max()) >= table.shape[-2]:
        raise SpecError(f"index {int(indices.max())} into a table of {table.shape[-2]} entries")
    places = np.ogrid[tuple(map(slice, shape))]
    group = tuple(
        place // (extent // count)
        for place, extent, count in zip(places, shape, groups, strict=True)
    )
    place_of: tuple[Any, ...] = (*group, indices.astype(np.intp))
    values = table[place_of]
    if table.shape[-1] == 1:
        return values[..., 0]
    assert axis is not None
    place = axis % indices.ndim
    return np.moveaxis(values, -1, place + 1).reshape([extent or 0 for extent in whole])


@kernel("constexpr_lut_to_dense")
def packed_lut(call: Call, indices: Array, lut: Array, shape: Entries) -> Array:
    size = vector(shape)
    count = _checked(size)
    bits = (len(lut) - 1).bit_length()
    stream = np.asarray(indices, np.uint8).ravel()
    if len(lut) != 1 << bits or bits not in (1, 2, 4, 6, 8) or len(stream) * 8 < bits * count:
        raise SpecError(f"{len(stream)} bytes of indices into {len(lut)} entries for {size}")
    codes = stream[:count] if bits == 8 else unpacked(stream, bits, count)
    return np.asarray(lut)[codes].reshape(size)


@kernel("constexpr_lut_to_dense", since=8)
def lut_to_dense(call: Call, indices: Array, lut: Array, vector_axis: int | None) -> Array:
    return _look_up(np.asarray(indices), lut, vector_axis)


def _spread(mask: Array, values: Array) -> Array:
    """Values where the mask is set, 0 elsewhere."""
    places = np.asarray(mask).astype(bool)
    values = np.asarray(values)
    if int(places.sum()) != values.size:
        raise SpecError(f"a mask of {int(places.sum())} values has {values.size}")
    y = np.zeros(places.shape, values.dtype)
    y[places] = values.ravel()
    return y


@kernel("constexpr_sparse_to_dense")
def packed_sparse(call: Call, nonzero_data: Array, mask: Array, shape: Entries) -> Array:
    size = vector(shape)
    count = _checked(size)
    stream = np.asarray(mask, np.uint8).ravel()
    if len(stream) * 8 < count:
        raise SpecError(f"a mask of {len(stream)} bytes for {size}")
    return _spread(unpacked(stream, 1, count).reshape(size), nonzero_data)


@kernel("constexpr_sparse_to_dense", since=8)
def sparse_to_dense(call: Call, nonzero_data: Array, mask: Array) -> Array:
    return _spread(mask, nonzero_data)


def _repeated(blocks: Array, shape: Ints) -> Array:
    """Repeat the value of each block for all of its elements."""
    y = np.asarray(blocks)
    for axis, (extent, count) in enumerate(zip(shape, y.shape, strict=True)):
        y = np.repeat(y, extent // count, axis) if count not in (1, extent) else y
    return y


@kernel("constexpr_blockwise_shift_scale")
def blockwise(call: Call, data: Array, scale: Array, offset: Array | None) -> Array:
    shape = data.shape
    blocks_fit(shape, np.shape(scale))
    values = data.astype(np.float32)
    if offset is not None:
        values = values - _repeated(np.asarray(offset, np.float32), shape)
    return values * _repeated(np.asarray(scale, np.float32), shape)


@kernel("constexpr_lut_to_sparse")
def lut_to_sparse(
    call: Call,
    indices_mask: Array,
    indices_nonzero_data: Array,
    lut: Array,
    vector_axis: int | None,
) -> tuple[Array, Array]:
    mask = np.asarray(indices_mask).astype(bool)
    values = _look_up(_spread(mask, indices_nonzero_data), lut, vector_axis)
    whole = mask
    if lut.shape[-1] > 1 and vector_axis is not None:
        whole = np.repeat(mask, lut.shape[-1], vector_axis)
    return whole.astype(np.uint8), values[whole]


@kernel("constexpr_sparse_blockwise_shift_scale")
def sparse_blockwise(
    call: Call, data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None
) -> tuple[Array, Array]:
    mask = np.asarray(data_mask).astype(bool)
    dense = blockwise(call, _spread(mask, nonzero_data), scale, offset)
    return mask.astype(np.uint8), dense[mask]
