"""How a weight is coded: the bits of an index, what an entry of a table holds, what shares one."""

from __future__ import annotations

import math
from typing import NamedTuple


class TableBlock(NamedTuple):
    """The part of a weight that shares a table.

    Attributes:
        outputs: how many of them; 0 for all.
        inputs: likewise.
    """

    outputs: int = 0
    inputs: int = 0

    def counts(self, outputs: int, inputs: int) -> tuple[int, int]:
        """How many blocks there are along the outputs and the inputs of a weight."""
        return outputs // (self.outputs or outputs), inputs // (self.inputs or inputs)

    def divides(self, outputs: int, inputs: int) -> bool:
        """Whether a weight has nothing but whole blocks."""
        return not outputs % (self.outputs or 1) and not inputs % (self.inputs or 1)

    def __str__(self) -> str:
        parts = ((self.outputs, "outputs"), (self.inputs, "inputs"))
        return " of ".join(f"{size} {what}" for size, what in parts if size)


WHOLE = TableBlock()


class Code(NamedTuple):
    """Indices into tables.

    Attributes:
        bits: of an index.
        length: how many values an entry of a table holds; one index stands for all of them.
        block: what shares a table.
    """

    bits: int
    length: int = 1
    block: TableBlock = WHOLE

    @property
    def rate(self) -> float:
        """The bits of a value, without tables."""
        return self.bits / self.length

    def size(self, count: int, tables: int, entry_bits: int) -> float:
        """The bits that a weight takes.

        Args:
            count: how many values it has.
            tables: how many tables it has.
            entry_bits: of each value in a table.
        """
        return count * self.rate + table_size(self.bits, tables, entry_bits) * self.length

    def or_single(self, count: int, tables: int, entry_bits: int) -> Code:
        """This, or single values with as many bits where those take no more.

        Vectors then only lose: a table of single values has, with the same bits, a choice of its
        own for each value of the vector.
        """
        single = self._replace(length=1)
        size = single.size(count, tables, entry_bits)
        return single if size <= self.size(count, tables, entry_bits) else self

    def __str__(self) -> str:
        vectors = "" if self.length == 1 else f" for {self.length} values"
        tables = "" if self.block == WHOLE else f", a table for {self.block}"
        return f"{self.bits} bits{vectors}{tables}"


def table_size(bits: float, tables: int, entry_bits: int) -> float:
    """The bits of some tables of single values; `bits` of an index may be a mean."""
    return math.pow(2, bits) * tables * entry_bits
