"""Convolutions of three by three pixels in Winograd's tiles, by the kernels that Numba compiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mlferry.compiled import vectors
from mlferry.compiled.matrices import PANEL
from mlferry.compiled.tasks import MapTask, Table, evenly, shares_of
from mlferry.compiled.winograd import (
    PackedTiles,
    convolve_in_tiles,
    number_for,
    weight_bytes,
)
from mlferry.runtime.planned.compiled_finish import following
from mlferry.runtime.planned.finish import Finish
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.products import by_rows, shared_blocks
from mlferry.runtime.threads import Part, lane_count

_CACHE = 500_000  # bytes of input and result that are worked on at a time
_LEAST_TILES = 12  # of a task: with fewer, weights are read too often; for each so many bytes:
_WEIGHTS = 4 << 20
_LANE_TASKS = 2  # for each core, at most
_TRANSFORM = 1 / 3  # how long a task transforms its input, in the time of a panel of columns


def convolved(x: Array, weights: PackedTiles, y: Array, finish: Finish) -> Part:
    """A convolution.

    Args:
        x: [H, W, C], its border included, large enough for whole tiles.
        weights: the kernels.
        y: [H', W', M].
        finish: what follows.
    """
    weights.check(x, y)
    ends, rest = finish.split_for_tiles()
    bias = np.zeros(weights.columns, np.float32)
    if finish.bias is not None:
        bias[:] = finish.bias
    whole = MapTask(
        convolve_in_tiles, y, x, (x.strides[0], x.strides[1]), run=weights.channels,
        weights=weights.values, weight_step=weights.values.strides[0], bias=bias,
        addends=ends.addend, rounds=ends.rounds, least=ends.limits.least, most=ends.limits.most,
        side=weights.side,
    )  # fmt: skip
    known = following(y, y, rest.steps)
    if known is not None:
        return Table([[_in_tiles(task) for task in _parts(whole)], *known])
    down, across = _extent(whole)
    held = _CACHE // (4 * y.shape[1] * (weights.channels + weights.columns))

    def block(first: int, number: int) -> Part:
        part = _rows(whole, first, number)
        table = Table([[_in_tiles(part)]])

        def run() -> None:
            table()
            rest(part.y, part.y, first * weights.side)

        return run

    even = shared_blocks(down, across * weights.side**2, held // weights.side)
    return by_rows(even, lambda: block)


def _extent(task: MapTask) -> tuple[int, int]:
    """How many tiles cover a result along its height and width."""
    height, width, _ = task.y.shape
    return -(-height // task.side), -(-width // task.side)


def _in_tiles(task: MapTask) -> MapTask:
    """A task that is ready to run."""
    down, across = _extent(task)
    number = number_for(down * across, task.side, task.run, task.y.shape[2])
    return replace(task, number=number, tile=vectors.tile_for(number))


def _parts(whole: MapTask) -> Sequence[MapTask]:
    """Tasks of rows, and where these are too few, also of columns.

    Those of the same columns follow each other, as they read the same weights.
    """
    down, across = _extent(whole)
    count = whole.y.shape[2]
    work = down * across * (whole.side + 2) ** 2 * whole.run * count
    weights = weight_bytes(whole.side, whole.run, count)
    fitting = max(1, down * across // (_LEAST_TILES * max(1, weights // _WEIGHTS)))
    rows = evenly(down, min(fitting, shares_of(work)))
    columns = _even_columns(count, len(rows), lane_count(work))
    return [
        _columns(_rows(whole, some.start, some.stop - some.start), *others)
        for others in pairwise(columns)
        for some in rows
    ]  # fmt: skip


def _even_columns(count: int, rows: int, lanes: int) -> Sequence[int]:
    """Where the columns of tasks start and end, so that threads end as early as possible.

    Args:
        count: of all columns.
        rows: how many tasks there are for the same columns.
        lanes: how many threads share them.
    """
    panels = -(-count // PANEL)
    most = min(panels, -(-_LANE_TASKS * lanes // rows))

    def seconds(tasks: int) -> float:
        return -(-tasks * rows // lanes) * (-(-panels // tasks) + _TRANSFORM)

    tasks = min(range(1, most + 1), key=seconds)
    return [min(count, panels * number // tasks * PANEL) for number in range(tasks + 1)]


def _rows(task: MapTask, first: int, number: int) -> MapTask:
    """A task for so many rows of tiles."""
    top = first * task.side
    places = slice(top, top + number * task.side)
    addends = None if task.addends is None else task.addends[places]
    return replace(task, x=task.x[top:], y=task.y[places], addends=addends)


def _columns(task: MapTask, first: int, end: int) -> MapTask:
    """A task for some channels of the result, in whole panels."""
    assert task.weights is not None
    assert task.bias is not None
    place = slice(first, end)
    return replace(
        task,
        y=task.y[..., place],
        addends=None if task.addends is None else task.addends[..., place],
        weights=task.weights[:, task.run * first :],
        bias=task.bias[place],
    )
