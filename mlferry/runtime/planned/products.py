"""Matrix products, and what follows them on rows that are still in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlferry.runtime.planned.maps import Array

Pointwise = Callable[[Array, Array], None]
_SMALL = 1_000_000  # multiplications: below it OpenBLAS takes a path without packing
_LEAST_ROWS = 14


Matmul = tuple[Array, Array, Array]


def products(a: Array, b: Array, out: Array) -> list[Matmul]:
    """What to multiply for ``out = a @ b``, [n, k] by [k, m]: rows that BLAS computes unpacked."""
    count, inner = a.shape
    rows = _SMALL // (inner * b.shape[1])
    if rows < _LEAST_ROWS or count <= rows:
        return [(a, b, out)]
    rows = count // -(-count // rows)
    batches = count // rows
    strided = np.lib.stride_tricks.as_strided
    whole = batches * rows
    made = [
        (
            strided(a, (batches, rows, inner), (rows * a.strides[0], *a.strides)),
            b,
            strided(out, (batches, rows, b.shape[1]), (rows * out.strides[0], *out.strides)),
        )
    ]
    return [*made, (a[whole:], b, out[whole:])] if whole < count else made


@dataclass
class Finish:
    """What is done to rows [r, W, C] of a result before anybody reads them.

    Attributes:
        factor: [C], by which whoever makes the rows multiplies its weights; None where it cannot.
        folded: the layers whose factors these are.
        bias: [C], added first.
        shortcut: [H, W, C], added next.
        functions: value by value, in their order; each writes its second argument.
    """

    factor: Array | None = None
    folded: tuple[str, ...] = ()
    bias: Array | None = None
    shortcut: Array | None = None
    functions: list[Pointwise] = field(default_factory=list)
    _tiled: dict[int, Array] = field(default_factory=dict)

    def __call__(self, source: Array, target: Array, top: int) -> None:
        """Finish some rows, the first of which is `top`, from `source` into `target`."""
        steps: list[Pointwise] = []
        if self.bias is not None:
            steps.append(self._add_bias)
        if self.shortcut is not None:
            steps.append(_adding(self.shortcut[top : top + len(source)]))
        steps += self.functions
        if not steps:
            if target is not source:
                np.copyto(target, source)
            return
        for step in steps[:-1]:
            step(source, source)
        steps[-1](source, target)

    def _add_bias(self, x: Array, out: Array) -> None:
        rows, width, channels = x.shape
        assert self.bias is not None
        if not (x.flags.c_contiguous and out.flags.c_contiguous):
            np.add(x, self.bias, out=out)
            return
        if width not in self._tiled:
            self._tiled[width] = np.tile(self.bias, width)
        shape = (rows, width * channels)
        np.add(x.reshape(shape), self._tiled[width], out=out.reshape(shape))


def _adding(part: Array) -> Pointwise:
    def add(x: Array, out: Array) -> None:
        np.add(x, part, out=out)

    return add


def blocks(height: int, rows: int) -> Sequence[tuple[int, int]]:
    """(first row, number) of even parts of at most `rows` rows."""
    rows = max(1, min(height, rows))
    even = -(-height // -(-height // rows))
    return [(top, min(even, height - top)) for top in range(0, height, even)]
