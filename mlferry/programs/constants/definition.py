"""Compressed constants, which are decompressed before the program runs.

Opsets 6 and 7 take them as attributes, later ones as inputs.
"""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Shape, axis_of
from mlferry.programs.definitions import (
    FLOATS,
    INT32,
    STRING,
    Operand,
    Operands,
    const,
    op_kind,
    option,
)
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import DTYPES, TensorType

_BYTES = frozenset({"int8", "uint8"})
_CODES = _BYTES | {"int4", "uint4"}
_INDICES = frozenset({"uint1", "uint2", "uint3", "uint4", "uint6", "uint8"})
_TABLE = FLOATS | _BYTES
_SIZE = frozenset({"uint32"})


@op_kind(
    "constexpr_affine_dequantize",
    since=6,
    quantized_data=const(_BYTES),
    zero_point=const(_BYTES | {"fp32"}),
    scale=const("T"),
    axis=const(INT32),
)
def affine_dequantize(operands: Operands) -> TensorType:
    """scale * (q - zero_point); both are single values, or one for each entry of an axis."""
    data = operands.quantized_data
    axis = axis_of(operands.axis.known, data.rank)
    for name in ("scale", "zero_point"):
        operand = getattr(operands, name)
        if operand.rank > 1 or (
            operand.rank == 1 and operand.shape[0] not in (1, data.shape[axis])
        ):
            raise SpecError(f"{name} is {operand.type}; axis {axis} of the data is {data.type}")
    return TensorType(operands.scale.dtype, data.shape)


@op_kind(
    "constexpr_cast", since=6, source_val=const(frozenset({"fp16"})), output_dtype=const(STRING)
)
def cast(operands: Operands) -> TensorType:
    if operands.output_dtype.known != "fp32":
        raise SpecError(f"output_dtype is {operands.output_dtype.known!r}; possible is fp32")
    return TensorType("fp32", operands.source_val.shape)


@op_kind(
    "constexpr_lut_to_dense",
    since=6,
    indices=const(frozenset({"uint8"})),
    lut=const(_TABLE),
    shape=const(_SIZE),
)
def packed_lut(operands: Operands) -> TensorType:
    """Indices are packed into bytes, each with as many bits as the table needs."""
    return TensorType(operands.lut.dtype, vector(operands.shape.known))


@op_kind(
    "constexpr_lut_to_dense",
    since=8,
    indices=const(_INDICES),
    lut=const(_TABLE),
    vector_axis=option(INT32),
)
def lut(operands: Operands) -> TensorType:
    """lut is [..groups.., 2^bits, vector]; vectors grow the axis that `vector_axis` says."""
    indices, table = operands.indices, operands.lut
    axis = None if operands.vector_axis is None else operands.vector_axis.known
    shape = looked_up(indices.shape, table.shape, axis)
    _entries_fit(table, indices)
    return TensorType(table.dtype, shape)


def _row(data: Operand) -> None:
    if data.rank != 1:
        raise SpecError(f"what is not zero is {data.type}; it has one axis")


def _entries_fit(table: Operand, indices: Operand) -> None:
    """A table has an entry for every index that its bits can express."""
    bits = DTYPES[indices.dtype].bits
    if table.shape[-2] != 1 << bits:
        raise SpecError(f"lut is {table.type}; indices of {bits} bits need {1 << bits} entries")


def looked_up(shape: Shape, table: Shape, axis: int | None) -> Shape:
    """The shape of the values for which indices of a shape stand.

    Raises:
        SpecError: the groups of the table do not divide the indices.
    """
    if len(table) != len(shape) + 2:
        raise SpecError(f"a table of {len(table)} axes for indices of {len(shape)}")
    for extent, groups in zip(shape, table, strict=False):
        if not groups or not extent or extent % groups:
            raise SpecError(f"{groups} groups of an axis of {extent} indices")
    length = table[-1] or 1
    if length == 1:
        return shape
    if axis is None:
        raise SpecError("vector_axis is needed where the table has vectors")
    place = axis_of(axis, len(shape))
    return (*shape[:place], (shape[place] or 0) * length, *shape[place + 1 :])


@op_kind(
    "constexpr_sparse_to_dense",
    since=6,
    nonzero_data=const(_TABLE),
    mask=const(frozenset({"uint8"})),
    shape=const(_SIZE),
)
def packed_sparse(operands: Operands) -> TensorType:
    return TensorType(operands.nonzero_data.dtype, vector(operands.shape.known))


@op_kind(
    "constexpr_sparse_to_dense",
    since=8,
    nonzero_data=const(_TABLE | _CODES),
    mask=const(frozenset({"uint1"})),
)
def sparse(operands: Operands) -> TensorType:
    _row(operands.nonzero_data)
    return TensorType(operands.nonzero_data.dtype, operands.mask.shape)


@op_kind(
    "constexpr_blockwise_shift_scale",
    since=8,
    data=const(_CODES | FLOATS),
    scale=const("T"),
    offset=option(_CODES | FLOATS),
)
def blockwise(operands: Operands) -> TensorType:
    """(data - offset) * scale, with one offset and scale for each block."""
    _blocks_fit(operands, operands.data, operands.data.shape)
    return TensorType(operands.scale.dtype, operands.data.shape)


def _blocks_fit(operands: Operands, data: Operand, shape: Shape) -> None:
    """Scale and offset have the same shape, which divides that of the data."""
    scale, offset = operands.scale, operands.offset
    blocks_fit(shape, scale.shape)
    if offset is None:
        return
    if offset.shape != scale.shape or offset.dtype not in FLOATS | {data.dtype}:
        raise SpecError(f"offset is {offset.type}; scale is {scale.type}, the data {data.type}")


def blocks_fit(shape: Shape, blocks: Shape) -> None:
    """Raise a `SpecError` if blocks do not divide a shape."""
    if len(shape) != len(blocks) or any(
        not count or (extent or 0) % count for extent, count in zip(shape, blocks, strict=True)
    ):
        raise SpecError(f"a scale of shape {blocks} does not divide data of shape {shape}")


@op_kind(
    "constexpr_lut_to_sparse",
    since=8,
    indices_mask=const(frozenset({"uint1"})),
    indices_nonzero_data=const(_INDICES),
    lut=const(_TABLE),
    vector_axis=option(INT32),
)
def lut_to_sparse(operands: Operands) -> tuple[TensorType, ...]:
    """A mask, and what is not zero."""
    mask, table = operands.indices_mask, operands.lut
    axis = None if operands.vector_axis is None else operands.vector_axis.known
    shape = looked_up(mask.shape, table.shape, axis)
    _entries_fit(table, operands.indices_nonzero_data)
    _row(operands.indices_nonzero_data)
    count = operands.indices_nonzero_data.shape[0]
    total = None if count is None else count * (table.shape[-1] or 1)
    return TensorType("uint1", shape), TensorType(table.dtype, (total,))


@op_kind(
    "constexpr_sparse_blockwise_shift_scale",
    since=8,
    data_mask=const(frozenset({"uint1"})),
    nonzero_data=const(_CODES | FLOATS),
    scale=const("T"),
    offset=option(_CODES | FLOATS),
)
def sparse_blockwise(operands: Operands) -> tuple[TensorType, ...]:
    """A mask, and what is not zero."""
    mask = operands.data_mask
    _row(operands.nonzero_data)
    _blocks_fit(operands, operands.nonzero_data, mask.shape)
    return mask.tensor, TensorType(operands.scale.dtype, operands.nonzero_data.shape)
