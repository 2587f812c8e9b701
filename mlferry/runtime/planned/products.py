"""Matrix products, and functions of their rows while these are still in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mlferry.runtime.planned.maps import Array
from mlferry.runtime.threads import Part, lane_count, share

Pointwise = Callable[[Array, Array], None]
Placed = Callable[[Array, Array, int], None]
Combine = Callable[[Array, Array, Array], Any]
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
    tasks = [
        (
            strided(a, (batches, rows, inner), (rows * a.strides[0], *a.strides)),
            b,
            strided(out, (batches, rows, b.shape[1]), (rows * out.strides[0], *out.strides)),
        )
    ]
    return [*tasks, (a[whole:], b, out[whole:])] if whole < count else tasks


@dataclass
class Finish:
    """What is done to rows [r, W, C] of a result before anything reads them.

    Attributes:
        factor: [C], to be multiplied into the weights that make the rows; None where impossible.
        folded: the layers whose factors these are.
        bias: [C], added first.
        steps: what follows, in its order: value by value, from the first argument into the
            second; the third is the first row.
        placed: whether one of them has to know which rows these are.
    """

    factor: Array | None = None
    folded: tuple[str, ...] = ()
    bias: Array | None = None
    steps: list[Placed] = field(default_factory=list)
    placed: bool = False
    _tiled: dict[int, Array] = field(default_factory=dict)

    def then(self, function: Pointwise) -> None:
        """Let a function of each value follow."""
        self.steps.append(lambda x, out, top: function(x, out))

    def then_with(self, combine: Combine, other: Array) -> None:
        """Let a function of each value and that of another map [H, W, C] follow."""
        self.placed = True
        self.steps.append(lambda x, out, top: combine(x, other[top : top + len(x)], out))

    def __call__(self, source: Array, target: Array, top: int) -> None:
        """Finish some rows, the first of which is `top`, from `source` into `target`."""
        steps = self.steps if self.bias is None else [self._add_bias, *self.steps]
        if not steps:
            if target is not source:
                np.copyto(target, source)
            return
        for step in steps[:-1]:
            step(source, source, top)
        steps[-1](source, target, top)

    def from_map(self, x: Array, target: Array, top: int) -> None:
        """The same, without changing `source`."""
        first, *rest = self.steps
        first(x, target, top)
        for step in rest:
            step(target, target, top)

    def _add_bias(self, x: Array, out: Array, top: int) -> None:
        rows, width, channels = x.shape
        assert self.bias is not None
        if not (x.flags.c_contiguous and out.flags.c_contiguous):
            np.add(x, self.bias, out=out)
            return
        if width not in self._tiled:
            self._tiled[width] = np.tile(self.bias, width)
        shape = (rows, width * channels)
        np.add(x.reshape(shape), self._tiled[width], out=out.reshape(shape))


def blocks(height: int, rows: int) -> Sequence[tuple[int, int]]:
    """(first row, number) of even parts of at most `rows` rows."""
    rows = max(1, min(height, rows))
    even = -(-height // -(-height // rows))
    return [(top, min(even, height - top)) for top in range(0, height, even)]


def shared_blocks(height: int, width: int, rows: int) -> Sequence[tuple[int, int]]:
    """As `blocks`, in pairs if there are enough pixels, so that two threads end at the same time.

    They depend on the map only, so that results are the same on any number of cores.
    """
    count = -(-height // max(1, min(height, rows)))
    if height > 1 and height * width >= _LEAST_SHARED:
        count = min(height, count + count % 2)
    return blocks(height, -(-height // count))


_LEAST_SHARED = 96  # pixels, below which a thread takes longer to start than the others to finish

Block = Callable[[int, int], Part]


def by_rows(even: Sequence[tuple[int, int]], lane: Callable[[], Block]) -> Part:
    """What runs for all blocks of rows, shared by threads.

    Args:
        even: the blocks; see `shared_blocks`.
        lane: takes memory for one thread, and gives what makes the part for a block of
            (first row, number).
    """
    blocks = [lane() for _ in range(lane_count(len(even)))]
    lanes = [[block(top, number) for top, number in even] for block in blocks]
    if len(lanes) == 1:
        (parts,) = lanes
        return parts[0] if len(parts) == 1 else partial(_in_turn, parts)
    return partial(share, lanes)


def _in_turn(parts: Sequence[Part]) -> None:
    for part in parts:
        part()
