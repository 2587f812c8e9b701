"""What is compressed already, compressed further, in programs from CoreML8 on: `CompressedParts`.

What is not zero of a pruned weight becomes indices of a table, or codes with scales; a table
becomes codes with scales.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Array
from mlferry.programs import compressed
from mlferry.programs.compressed import Compressed
from mlferry.programs.graph import Value, constant


@dataclass(frozen=True)
class CompressedParts:
    """How a constant is stored.

    Attributes:
        mask: 1 where it is stored, in the shape of the constant; None if all of it is.
        codes: indices of a table, or codes with scales, in the shape of the constant, 0 where
            nothing is stored; None if floats are stored.
        kind: the type of the codes.
        table: what the indices stand for.
        scale: of codes; beside a table, of what it stands for.
        offset: of codes.
        axis: of the vectors that a table has.
    """

    mask: Array | None = None
    codes: Array | None = None
    kind: str = ""
    table: Value | None = None
    scale: Value | None = None
    offset: Value | None = None
    axis: Value | None = None

    @classmethod
    def of(cls, stored: Compressed) -> CompressedParts:
        """The parts of a constant as CoreML8 stores it.

        Raises:
            SpecError: it is stored otherwise than the schemes of quantization and pruning do.
        """
        reader = _READ.get(stored.op)
        if reader is None:
            raise SpecError(f"what {stored.op} makes cannot be compressed further")
        return reader(stored.arguments)

    @property
    def what(self) -> str:
        """How it is stored, in words."""
        phrases = []
        if self.mask is not None:
            phrases.append("pruned")
        if self.table is not None:
            phrases.append("in a table" if self.table.is_constant else "in a quantized table")
        if self.scale is not None:
            phrases.append("in codes with scales" if self.table is None else "scaled")
        return " and ".join(phrases)

    def written(self, opset: int, values: Array, dtype: str) -> Compressed:
        """An operation that makes the constant.

        Args:
            opset: CoreML8 at least.
            values: the constant, for what is stored in floats.
            dtype: of the constant.
        """
        if self.codes is None:
            return compressed.sparse(opset, values, dtype)
        mask = self.mask
        codes = constant(self.codes if mask is None else self.codes[mask != 0], self.kind)
        if self.table is not None:
            more = {} if self.axis is None else {"vector_axis": self.axis}
            if mask is None:
                arguments = {"indices": codes, "lut": self.table, **more}
                looked_up = Compressed("constexpr_lut_to_dense", arguments)
                if self.scale is None:
                    return looked_up
                (data,) = looked_up.outputs(opset)
                scaled = {"data": data, "scale": self.scale}
                return Compressed("constexpr_blockwise_shift_scale", scaled)
            stored = constant(mask, "uint1")
            arguments = {"indices_mask": stored, "indices_nonzero_data": codes, "lut": self.table}
            inner = Compressed("constexpr_lut_to_sparse", arguments | more)
        else:
            scales = {"scale": self.scale}
            if self.offset is not None:
                scales["offset"] = self.offset
            if mask is None:
                return Compressed("constexpr_blockwise_shift_scale", {"data": codes, **scales})
            stored = constant(mask, "uint1")
            inner = Compressed(
                "constexpr_sparse_blockwise_shift_scale",
                {"data_mask": stored, "nonzero_data": codes, **scales},
            )
        return compressed.spread(*inner.outputs(opset))

    def pruned(self, mask: Array) -> CompressedParts:
        """With fewer values stored.

        Raises:
            SpecError: a table of vectors has no values by themselves.
        """
        if self.axis is not None:
            raise SpecError("a table of vectors cannot be pruned")
        if self.table is not None and self.scale is not None:
            raise SpecError("a table with scales beside it cannot be pruned")
        return dataclasses.replace(self, mask=mask.astype(np.uint8))

    def with_codes(self, compressed: Compressed) -> CompressedParts:
        """With what is stored in floats in the codes of a scheme, of all values."""
        parts = CompressedParts.of(compressed)
        return dataclasses.replace(parts, mask=self.mask)

    def with_table(self, table: Value) -> CompressedParts:
        """With another table."""
        return dataclasses.replace(self, table=table)


def _array(value: object) -> Array:
    if not isinstance(value, Value) or not value.is_constant:
        raise SpecError("what is compressed twice already cannot be compressed further")
    return np.asarray(value.constant)


def _spread(mask: Array, values: Array) -> Array:
    whole = np.zeros(mask.shape, values.dtype)
    whole[mask != 0] = values
    return whole


def _sparse(arguments: dict[str, Any]) -> CompressedParts:
    nonzero = arguments["nonzero_data"]
    if nonzero.is_constant:
        return CompressedParts(mask=_array(arguments["mask"]))
    inner = nonzero.maker
    reader = _READ.get(inner.op)
    if reader not in (_sparse_table, _sparse_codes):
        raise SpecError(f"what {inner.op} makes for a mask cannot be compressed further")
    return reader(inner.arguments)


def _table(arguments: dict[str, Any]) -> CompressedParts:
    indices = arguments["indices"]
    axis = _axis(arguments)
    return CompressedParts(None, _array(indices), indices.dtype, arguments["lut"], axis=axis)


def _sparse_table(arguments: dict[str, Any]) -> CompressedParts:
    mask, values = _array(arguments["indices_mask"]), arguments["indices_nonzero_data"]
    codes = _spread(mask, _array(values))
    return CompressedParts(mask, codes, values.dtype, arguments["lut"], axis=_axis(arguments))


def _axis(arguments: dict[str, Any]) -> Value | None:
    vector = arguments["lut"].shape[-1] != 1
    return arguments.get("vector_axis") if vector else None


def _codes(arguments: dict[str, Any]) -> CompressedParts:
    data = arguments["data"]
    inner = data.maker
    if inner is not None and _READ.get(inner.op) is _table and arguments.get("offset") is None:
        return dataclasses.replace(_table(inner.arguments), scale=arguments["scale"])
    scales = {"scale": arguments["scale"], "offset": arguments.get("offset")}
    return CompressedParts(None, _array(data), data.dtype, **scales)


def _sparse_codes(arguments: dict[str, Any]) -> CompressedParts:
    mask, values = _array(arguments["data_mask"]), arguments["nonzero_data"]
    scales = {"scale": arguments["scale"], "offset": arguments.get("offset")}
    return CompressedParts(mask, _spread(mask, _array(values)), values.dtype, **scales)


_READ = {
    "constexpr_sparse_to_dense": _sparse,
    "constexpr_lut_to_dense": _table,
    "constexpr_blockwise_shift_scale": _codes,
    "constexpr_lut_to_sparse": _sparse_table,
    "constexpr_sparse_blockwise_shift_scale": _sparse_codes,
}
