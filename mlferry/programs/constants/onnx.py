"""Compressed constants, which stay compressed if ONNX has nodes that decompress them.

Those without a function here, the sparse ones, are stored in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlferry.numerics.bits import unpacked
from mlferry.numerics.shapes import Array, axis_of
from mlferry.onnx_graph.emitter import FLOAT, INT32, Emitter
from mlferry.programs.exports import Call, export
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries

_CODES = ("int8", "uint8")


def _dequantized(
    emitter: Emitter, call: Call, data: Array, scale: Array, zero: Array, axis: int
) -> str:
    """(data - zero) * scale; both are single values, or one for each entry of an axis.

    A zero point outside the codes of the data needs nodes of its own.
    """
    whole = np.broadcast_to(zero, scale.shape)
    codes = whole.astype(data.dtype)
    if data.dtype.name in _CODES and (codes == whole).all():
        return emitter.node(
            "DequantizeLinear",
            emitter.constant(data, call.name),
            emitter.constant(scale.astype(np.float32)),
            emitter.constant(codes),
            axis=axis if scale.ndim else None,
        )
    shape = [1] * data.ndim
    if scale.ndim:
        shape[axis] = -1
    shift, factor = (
        emitter.constant(values.astype(np.float32).reshape(shape)) for values in (whole, scale)
    )
    y = _floats(emitter, emitter.constant(data, call.name))
    return emitter.node("Mul", emitter.node("Sub", y, shift), factor)


@export("constexpr_affine_dequantize")
def affine_dequantize(
    emitter: Emitter,
    call: Call,
    quantized_data: Array,
    zero_point: float | Array,
    scale: float | Array,
    axis: int,
) -> str:
    data = np.asarray(quantized_data)
    factors, zero = np.asarray(scale), np.asarray(zero_point)
    shape = np.broadcast_shapes(factors.shape, zero.shape)
    if math.prod(shape) == 1:
        factors, zero, shape = factors.reshape(()), zero.reshape(()), ()
    return _dequantized(
        emitter, call, data, np.broadcast_to(factors, shape), zero, axis_of(axis, data.ndim)
    )


@export("constexpr_cast")
def casted(emitter: Emitter, call: Call, source_val: Array, output_dtype: str) -> str:
    constant = emitter.constant(np.asarray(source_val).astype(np.float16), call.name)
    return emitter.node("Cast", constant, to=FLOAT)


def _looked_up(emitter: Emitter, call: Call, codes: Array, table: Array) -> str:
    """Each index is stored in a byte."""
    places = _codes(emitter, call, codes)
    return emitter.node("Gather", emitter.constant(table.astype(call.dtype)), places, axis=0)


def _codes(emitter: Emitter, call: Call, codes: Array) -> str:
    """Stored codes in the type with which nodes compute."""
    return emitter.node("Cast", emitter.constant(codes, call.name), to=INT32)


@export("constexpr_lut_to_dense", moves=True)
def packed_lut(emitter: Emitter, call: Call, indices: Array, lut: Array, shape: Entries) -> str:
    size, table = vector(shape), np.asarray(lut)
    count, bits = math.prod(size), (len(table) - 1).bit_length()
    stream = np.asarray(indices, np.uint8).ravel()
    codes = stream[:count] if bits == 8 else unpacked(stream, bits, count)
    return _looked_up(emitter, call, codes.astype(np.uint8).reshape(size), table)


@export("constexpr_lut_to_dense", since=8, moves=True)
def lut_to_dense(
    emitter: Emitter, call: Call, indices: Array, lut: Array, vector_axis: int | None
) -> str:
    """A table for each group of indices; its entries follow those of the groups before it."""
    codes, table = np.asarray(indices).astype(np.uint8), np.asarray(lut)
    *groups, entries, length = table.shape
    flat = table.reshape(-1, length) if length > 1 else table.reshape(-1)
    if math.prod(groups) == 1:
        y = _looked_up(emitter, call, codes, flat)
    else:
        parts = _parts(codes.shape, groups)
        places = emitter.reshape(_codes(emitter, call, codes), parts)
        first = (np.arange(math.prod(groups)) * entries).astype(np.int32)
        starts = emitter.constant(first.reshape([n for g in groups for n in (g, 1)]))
        places = emitter.node("Add", places, starts)
        y = emitter.node("Gather", emitter.constant(flat.astype(call.dtype)), places, axis=0)
        tail = [length] if length > 1 else []
        emitter.shapes[y] = (*parts, *tail)
        y = emitter.reshape(y, [*codes.shape, *tail])
    if length == 1 or vector_axis is None:
        return y
    place, rank = axis_of(vector_axis, codes.ndim), codes.ndim
    emitter.shapes[y] = (*codes.shape, length)
    y = emitter.transpose(y, [*range(place + 1), rank, *range(place + 1, rank)])
    return emitter.reshape(y, [n * length if i == place else n for i, n in enumerate(codes.shape)])


def _parts(shape: Sequence[int], counts: Sequence[int]) -> list[int]:
    """A shape in which each axis is split into the blocks and the entries of a block."""
    pairs = zip(shape, counts, strict=True)
    return [n for extent, count in pairs for n in (count, extent // count)]


@export("constexpr_blockwise_shift_scale")
def blockwise(emitter: Emitter, call: Call, data: Array, scale: Array, offset: Array | None) -> str:
    codes, factors = np.asarray(data), np.asarray(scale)
    zero = np.zeros(factors.shape, np.int8) if offset is None else np.asarray(offset)
    varying = [axis for axis, count in enumerate(factors.shape) if count > 1]
    alone = len(varying) < 2 and all(factors.shape[i] == codes.shape[i] for i in varying)
    if alone and codes.dtype.name in _CODES:
        shape: list[int] = [-1] if varying else []
        axis = varying[0] if varying else 0
        return _dequantized(emitter, call, codes, factors.reshape(shape), zero.reshape(shape), axis)
    parts = _parts(codes.shape, factors.shape)
    spread = [n for count in factors.shape for n in (count, 1)]
    constant = emitter.constant(codes, call.name)
    y = constant if codes.dtype == np.float32 else _floats(emitter, constant)
    emitter.shapes[y] = codes.shape
    y = emitter.reshape(y, parts)
    if offset is not None:
        shift = emitter.constant(zero.astype(np.float32).reshape(spread))
        y = emitter.node("Sub", y, shift)
    y = emitter.node("Mul", y, emitter.constant(factors.astype(np.float32).reshape(spread)))
    emitter.shapes[y] = tuple(parts)
    return emitter.reshape(y, codes.shape)


def _floats(emitter: Emitter, x: str) -> str:
    """A stored constant as float32, by a node, so that it is not stored as float32."""
    return emitter.node("Cast", x, to=FLOAT)
