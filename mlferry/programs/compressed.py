"""Constants in fewer bits, as operations: tables, codes with scales, and masks.

Up to CoreML7 what they hold are attributes, from CoreML8 on inputs, with more bits and blocks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlferry.numerics.bits import packed
from mlferry.numerics.half import narrowed
from mlferry.programs.builder import NewerOpsetError, inferred
from mlferry.programs.definitions import definition_of
from mlferry.programs.graph import Array, Operation, Value, constant, string

FIRST, BLOCKS = 6, 8  # the opsets that brought compressed constants, and those with blocks
TABLE_BITS = (1, 2, 3, 4, 6, 8)
_FIRST_TABLE_BITS = (1, 2, 4, 6, 8)


def table_bits(opset: int) -> tuple[int, ...]:
    """How many bits the indices of tables may have."""
    return TABLE_BITS if opset >= BLOCKS else _FIRST_TABLE_BITS


class Compressed(NamedTuple):
    """An operation that makes a constant whole; what it gets may be made by others."""

    op: str
    arguments: dict[str, Any]

    def outputs(self, opset: int) -> tuple[Value, ...]:
        """What it makes, for the arguments of another; without names."""
        types = inferred(self.op, definition_of(self.op, opset), self.arguments)
        outputs = tuple(Value("", kind) for kind in types)
        operation = Operation(self.op, dict(self.arguments), outputs)
        for value in outputs:
            value.maker = operation
        return outputs


def looked_up(
    opset: int, codes: Array, tables: Array, bits: int, dtype: str, vector_axis: int | None = None
) -> Compressed:
    """Values of a table.

    Args:
        codes: indices in the shape of the constant, as bytes; with vectors, its extent along their
            axis is divided by their length.
        tables: [2 ** bits], or with leading axes as many as the constant has: a table for each
            group of its entries; with vectors the last axis is theirs.
        bits: 1, 2, 3, 4, 6 or 8.
        dtype: of the values, "fp16" or "fp32".
        vector_axis: along which the entries of a table go; None for single values.

    Raises:
        NewerOpsetError: the opset has no such tables.
    """
    if tables.ndim == 1 and bits in _FIRST_TABLE_BITS and opset < BLOCKS:
        _check(opset, FIRST, "a table of weights")
        flat: Any = np.ascontiguousarray(codes).reshape(-1)
        if bits < 8:
            flat = np.frombuffer(packed(flat, bits), np.uint8)
        return Compressed(
            "constexpr_lut_to_dense",
            {
                "indices": constant(flat, "uint8"),
                "lut": _floats(tables, dtype),
                "shape": constant(np.array(codes.shape, np.uint32), "uint32"),
            },
        )
    what = f"tables of {bits} bits" if tables.ndim == 1 else "tables for groups"
    _check(opset, BLOCKS, what if vector_axis is None else "tables of vectors")
    grouped = tables.reshape(*[1] * codes.ndim, -1) if tables.ndim == 1 else tables
    arguments = {
        "indices": constant(codes, f"uint{bits}"),
        "lut": _floats(grouped[..., None] if vector_axis is None else grouped, dtype),
    }
    if vector_axis is not None:
        arguments["vector_axis"] = constant(np.int32(vector_axis), "int32")
    return Compressed("constexpr_lut_to_dense", arguments)


def scaled(
    opset: int, codes: Array, scale: Array, zero_point: Array, bits: int, dtype: str
) -> Compressed:
    """scale * (code - zero_point).

    Args:
        codes: int8 or uint8, in the shape of the constant.
        scale: of the rank of the constant; the extents of its blocks are those of the constant
            divided by its own.
        zero_point: in the shape of the scale, in the type of the codes.
        bits: 4 or 8.
        dtype: of the values.

    Raises:
        NewerOpsetError: the opset has no such codes.
    """
    axes = [axis for axis, count in enumerate(scale.shape) if count != 1]
    channels = not axes or (len(axes) == 1 and scale.shape[axes[0]] == codes.shape[axes[0]])
    kind = "int" if codes.dtype == np.int8 else "uint"
    if bits == 8 and channels and opset < BLOCKS:
        _check(opset, FIRST, "weights of 8 bits with a scale")
        shape = (-1,) if axes else ()
        return Compressed(
            "constexpr_affine_dequantize",
            {
                "quantized_data": constant(codes, f"{kind}8"),
                "zero_point": constant(zero_point.reshape(shape), f"{kind}8"),
                "scale": _floats(scale.reshape(shape), dtype),
                "axis": constant(np.int32(axes[0] if axes else 0), "int32"),
            },
        )
    _check(opset, BLOCKS, "weights of 4 bits" if bits == 4 else "weights with a scale a block")
    arguments = {"data": constant(codes, f"{kind}{bits}"), "scale": _floats(scale, dtype)}
    if zero_point.any():
        arguments["offset"] = constant(zero_point, f"{kind}{bits}")
    return Compressed("constexpr_blockwise_shift_scale", arguments)


def rescaled(opset: int, compressed: Compressed, scale: Array, dtype: str) -> Compressed:
    """What an operation makes, times a scale that spreads over it; from CoreML8 on."""
    (values,) = compressed.outputs(opset)
    return Compressed(
        "constexpr_blockwise_shift_scale", {"data": values, "scale": _floats(scale, dtype)}
    )


def sparse(opset: int, values: Array, dtype: str) -> Compressed:
    """What is not zero, and a bit for each value that says where it is.

    Raises:
        NewerOpsetError: the opset has no such constants.
    """
    _check(opset, FIRST, "sparse weights")
    stored = values != 0
    mask, nonzero = stored.view(np.uint8), _floats(values[stored], dtype)
    if opset >= BLOCKS:
        return Compressed(
            "constexpr_sparse_to_dense", {"nonzero_data": nonzero, "mask": constant(mask, "uint1")}
        )
    bits = np.frombuffer(packed(mask.reshape(-1), 1), np.uint8)
    return Compressed(
        "constexpr_sparse_to_dense",
        {
            "nonzero_data": nonzero,
            "mask": constant(bits, "uint8"),
            "shape": constant(np.array(values.shape, np.uint32), "uint32"),
        },
    )


def spread(mask: Value, nonzero: Value) -> Compressed:
    """What is not zero, however it is stored, where a mask says; from CoreML8 on."""
    return Compressed("constexpr_sparse_to_dense", {"nonzero_data": nonzero, "mask": mask})


def widened(opset: int, values: Array) -> Compressed:
    """float16 in the file, float32 in the program.

    Raises:
        NewerOpsetError: the opset has no such constants.
    """
    _check(opset, FIRST, "weights of half precision in float32")
    return Compressed(
        "constexpr_cast",
        {"source_val": constant(narrowed(values), "fp16"), "output_dtype": string("fp32")},
    )


def _floats(array: Array, dtype: str) -> Value:
    return constant(array.astype(np.float16 if dtype == "fp16" else np.float32), dtype)


def _check(opset: int, needed: int, what: str) -> None:
    if opset < needed:
        raise NewerOpsetError(what, needed)
