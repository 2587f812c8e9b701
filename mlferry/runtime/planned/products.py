"""Matrix products, some rows at a time, so that what follows finds them in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mlferry.runtime.planned.maps import Array
from mlferry.runtime.threads import Part, Shared, lane_count

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
    return Shared(lanes)


def _in_turn(parts: Sequence[Part]) -> None:
    for part in parts:
        part()
