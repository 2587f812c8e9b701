"""How a weight is coded by a table: the bits of an index, and the values that an entry holds."""

from __future__ import annotations

import math
from typing import NamedTuple


class Code(NamedTuple):
    """Indices into a table.

    Attributes:
        bits: of an index.
        length: how many values an entry of the table holds; one index stands for all of them.
    """

    bits: int
    length: int = 1

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
        single = Code(self.bits)
        size = single.size(count, tables, entry_bits)
        return single if size <= self.size(count, tables, entry_bits) else self

    def __str__(self) -> str:
        vectors = "" if self.length == 1 else f" for {self.length} values"
        return f"{self.bits} bits{vectors}"


def table_size(bits: float, tables: int, entry_bits: int) -> float:
    """The bits of some tables of single values; `bits` of an index may be a mean."""
    return math.pow(2, bits) * tables * entry_bits
