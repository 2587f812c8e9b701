"""Steps of a table that work on arrays: products, normalization, functions and moves.

Each function returns the tasks of one step, which may run at the same time. The arrays lie where
they are when a task is made; a `Table` keeps them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled import arithmetic, functions, moments, recurrent, rows as rowwise
from mlferry.compiled.kinds import Kind
from mlferry.compiled.matrices import PANEL, PackedMatrix
from mlferry.compiled.record import AT_ITS_PLACE
from mlferry.compiled.tasks import Number, columns_evenly, evenly, numbers_of, shares_of
from mlferry.compiled.vectors import BYTES, LANES, SCRATCH_BYTES, Array, tile_for
from mlferry.compiled.windows import convolve
from mlferry.errors import PredictionError

_INFINITE = np.float32(np.inf)
_CACHE = 1 << 17  # bytes of rows that a task multiplies by one panel of weights after another
_LEAST_TILES = 8  # of such rows at least, as each task reads all of its weights
_PASSES = {
    functions.apply: 32, rowwise.softmax: 32, rowwise.normalize: 12, arithmetic.combine: 6,
    arithmetic.move_apart: 6, arithmetic.gather_rows: 6, moments.describe_lines: 6,
}  # fmt: skip
"""Multiplications that take about as long as one value."""


@dataclass(frozen=True)
class ArrayTask:
    """A task whose numbers are known.

    Attributes:
        kind: what it does.
        numbers: see `numbers_of`.
        arrays: what they are the addresses of.
        work: the multiplications that take as long.
    """

    kind: Kind
    numbers: tuple[float, ...]
    arrays: tuple[NDArray[Any], ...]
    work: int

    def row(self) -> tuple[float, ...]:
        """See `TableTask`."""
        return self.numbers


def _task(kind: Kind, work: int, **values: Number) -> ArrayTask:
    arrays = tuple(value for value in values.values() if isinstance(value, np.ndarray))
    return ArrayTask(kind, numbers_of(code=kind.address, **values), arrays, work)


@dataclass(frozen=True)
class Ends:
    """What a product does to its sums before it writes them, in this order.

    Attributes:
        rounds: whether each result is rounded to float16.
        addends: what to add, of the shape of the result, or None.
        least: of the results.
        most: of the results.
    """

    rounds: bool = False
    addends: Array | None = None
    least: np.float32 = -_INFINITE
    most: np.float32 = _INFINITE


def product(x: Array, weights: PackedMatrix, bias: Array, y: Array, ends: Ends) -> list[ArrayTask]:
    """Rows times weights, plus a bias.

    Args:
        x: [n, inner].
        weights: [inner, m].
        bias: as many values as the columns of the weights, filled up as they are.
        y: [n, m].
        ends: what follows.
    """
    _check_rows(x, y, *([] if ends.addends is None else [ends.addends]))
    weights.check(x.shape[1], y.shape[1])
    if len(x) != len(y) or (ends.addends is not None and ends.addends.shape != y.shape):
        raise PredictionError(f"a product of {x.shape} gives no {y.shape}")
    inner, (count, columns) = x.shape[1], y.shape
    shares = shares_of(y.size * inner)
    by_columns = columns > count
    tile = tile_for(count)
    held = max(_LEAST_TILES, _CACHE // (BYTES * max(1, inner) * tile)) * tile
    rows = evenly(count, max(1 if by_columns else shares, -(-count // held)), tile)
    parts = -(-shares // len(rows)) if by_columns else 1
    tasks: list[ArrayTask] = []
    for row, place in itertools.product(rows, columns_evenly(columns, parts, PANEL)):
        added = None if ends.addends is None else ends.addends[row, place]
        tasks.append(
            _task(
                convolve, y[row, place].size * inner, x=x[row], step=x.strides[0],
                offsets=AT_ITS_PLACE, segments=1,
                run=inner, weights=weights.values[place.start * inner :], bias=bias[place.start :],
                addends=added, addend_step=0 if added is None else added.strides[0],
                rounds=int(ends.rounds), y=y[row, place], y_step=y.strides[0], height=1,
                width=row.stop - row.start, columns=place.stop - place.start,
                tile=tile_for(row.stop - row.start), least=ends.least, most=ends.most,
            )
        )  # fmt: skip
    return tasks


def packed(x: Array, weights: PackedMatrix) -> list[ArrayTask]:
    """Writes a matrix [inner, m], in any order, into the values of weights."""
    inner, columns = x.shape
    weights.check(inner, columns)
    tasks: list[ArrayTask] = []
    for place, panels in weights.parts():
        part = _apart(x[:, place], len(panels))
        tasks += moved(part, panels[..., : part.shape[2]])
    return tasks


def normalized(x: Array, gamma: Array, beta: Array, epsilon: float, y: Array) -> list[ArrayTask]:
    """Rows [n, m] with mean 0 and variance 1 each, times factors [m] and plus shifts [m]."""
    _check_rows(x, y)
    if not x.shape == y.shape == (len(x), gamma.size) == (len(x), beta.size):
        raise PredictionError(f"{gamma.size} factors for rows {x.shape}")
    return _over_rows(rowwise.normalize, x, y, weights=gamma, bias=beta, least=epsilon)


def softmax(x: Array, y: Array) -> list[ArrayTask]:
    """e**x over its sum in each row [n, m]."""
    _check_rows(x, y)
    if x.shape != y.shape:
        raise PredictionError(f"softmax of {x.shape} gives no {y.shape}")
    return _over_rows(rowwise.softmax, x, y)


def described(x: Array, lines: Array) -> list[ArrayTask]:
    """Of each line and channel of a map the mean, and the sum of squared deviations from it.

    Args:
        x: [H, W, C]; C is at least as much as a vector has lanes.
        lines: the result, [H, 2, C].
    """
    height, width, channels = x.shape
    if lines.shape != (height, 2, channels) or channels < LANES or x.strides[2] != BYTES:
        raise PredictionError(f"lines of {x.shape} give no {lines.shape}")
    kind = moments.describe_lines
    return [
        _task(
            kind, x[part].size * _PASSES[kind], x=x[part], line=x.strides[0], step=x.strides[1],
            y=lines[part], y_line=lines.strides[0], y_step=lines.strides[1],
            height=part.stop - part.start, width=width, columns=channels,
        )
        for part in evenly(height, shares_of(x.size * _PASSES[kind]))
    ]  # fmt: skip


def factors(
    lines: Array, pixels: int, gamma: Array, beta: Array, epsilon: float, y: Array
) -> list[ArrayTask]:
    """What to multiply channels by, and to add, to normalize them.

    Args:
        lines: the results of `described`, [H, 2, n * C]: n times the same channels.
        pixels: of a line, for each of these.
        gamma: the deviations that the channels get, [C].
        beta: their means, [C].
        epsilon: what is added to variances.
        y: the factors and what to add, n times, [2, n * C].
    """
    height, _, columns = lines.shape
    channels = gamma.size
    if y.shape != (2, columns) or columns % channels or beta.size != channels:
        raise PredictionError(f"{channels} factors of {lines.shape} for {y.shape}")
    parts = evenly(channels, -(-channels // moments.MOST_COLUMNS))
    if len(parts) > 1 and channels < columns:
        raise PredictionError(f"{channels} channels are too many to stand side by side")
    return [
        _task(
            moments.find_factors, lines[..., part].size, x=lines[..., part],
            line=lines.strides[0], step=lines.strides[1], number=pixels, weights=gamma[part],
            bias=beta[part], least=epsilon, y=y[:, part], y_line=y.strides[0], height=height,
            width=columns // channels, columns=part.stop - part.start,
        )
        for part in parts
    ]  # fmt: skip


def _over_rows(kind: Kind, x: Array, y: Array, **others: Array | float) -> list[ArrayTask]:
    return [
        _task(
            kind, x[part].size * _PASSES[kind], x=x[part], step=x.strides[0],
            y=y[part], y_step=y.strides[0],
            width=part.stop - part.start, columns=x.shape[1], **others,
        )
        for part in evenly(len(x), shares_of(x.size * _PASSES[kind]))
    ]  # fmt: skip


def applied(
    name: str,
    x: Array,
    y: Array,
    least: np.float32 = -_INFINITE,
    most: np.float32 = _INFINITE,
) -> list[ArrayTask]:
    """A function of each value; see `functions.PLACES`. Then limits.

    Raises:
        PredictionError: the shapes differ, or the values of a row lie apart.
    """
    if x.shape != y.shape:
        raise PredictionError(f"a function of {x.shape} gives no {y.shape}")
    kind = functions.apply
    tasks: list[ArrayTask] = []
    for source, target in _in_three_axes(x, y):
        if not _lies_in_rows(source, repeats=False):
            raise PredictionError("the values of a row lie apart")
        for part in _parts(target.shape, kind):
            a, b = source[part], target[part]
            tasks.append(
                _task(
                    kind, b.size * _PASSES[kind], function=functions.PLACES[name], x=a,
                    line=a.strides[0], step=a.strides[1], y=b, least=least, most=most,
                    **_extents(b),
                )
            )  # fmt: skip
    return tasks


def applies(x: Array, y: Array) -> bool:
    """Whether `applied` takes these arrays of one shape."""
    return all(_lies_in_rows(source, repeats=False) for source, _ in _in_three_axes(x, y))


def combines(x: Array, other: Array, y: Array) -> bool:
    """Whether `combined` takes these arrays of one shape."""
    return all(_lies_in_rows(z) for *given, _ in _in_three_axes(x, other, y) for z in given)


def _lies_in_rows(x: Array, *, repeats: bool = True) -> bool:
    """Whether the values of a row lie side by side; if it `repeats`, also whether they are one."""
    return x.shape[2] == 1 or x.strides[2] == BYTES or (repeats and x.strides[2] == 0)


def combined(name: str, x: Array, other: Array, y: Array, ends: Ends) -> list[ArrayTask]:
    """A function of two values, of arrays of one shape; see `arithmetic.PLACES`.

    Raises:
        PredictionError: values of a row of an operand neither lie side by side nor are one.
    """
    tasks: list[ArrayTask] = []
    for one, two, result in _in_three_axes(x, other, y):
        if not (_lies_in_rows(one) and _lies_in_rows(two)):
            raise PredictionError("the values of a row lie apart")
        for part in _parts(result.shape, arithmetic.combine):
            a, b, c = one[part], two[part], result[part]
            tasks.append(
                _task(
                    arithmetic.combine, c.size * _PASSES[arithmetic.combine],
                    function=arithmetic.PLACES[name], x=a, line=a.strides[0],
                    step=a.strides[1], spread=a.strides[2], addends=b, addend_line=b.strides[0],
                    addend_step=b.strides[1], addend_spread=b.strides[2], y=c,
                    rounds=int(ends.rounds), least=ends.least, most=ends.most, **_extents(c),
                )
            )  # fmt: skip
    return tasks


def moved(x: Array, y: Array) -> list[ArrayTask]:
    """Copies an array that lies in any order to one whose last axis lies in one piece."""
    tasks: list[ArrayTask] = []
    for source, target in _in_three_axes(np.broadcast_to(x, y.shape), y):
        for part in _parts(target.shape, arithmetic.move_apart):
            a, b = source[part], target[part]
            tasks.append(
                _task(
                    arithmetic.move_apart, b.size * _PASSES[arithmetic.move_apart], x=a,
                    line=a.strides[0], step=a.strides[1], spread=a.strides[2],
                    y=b, **_extents(b),
                )
            )  # fmt: skip
    return tasks


def gathered(x: Array, indices: Array, y: Array, wrong: NDArray[np.int64]) -> list[ArrayTask]:
    """Rows by their indices; negative ones count from the end, and fractions are cut off.

    Args:
        x: [n, m].
        indices: [k].
        y: [k, m].
        wrong: gets a 1 where an index names no row.
    """
    _check_rows(x, y)
    if y.shape != (indices.size, x.shape[1]) or not indices.flags.c_contiguous:
        raise PredictionError(f"{indices.shape} rows of {x.shape} give no {y.shape}")
    return [
        _task(
            arithmetic.gather_rows, y[part].size * _PASSES[arithmetic.gather_rows], x=x,
            step=x.strides[0], height=len(x), addends=indices[part], bias=wrong, y=y[part],
            y_step=y.strides[0], width=part.stop - part.start, columns=x.shape[1],
        )
        for part in evenly(indices.size, shares_of(y.size * _PASSES[arithmetic.gather_rows]))
    ]  # fmt: skip


def walked(
    entries: Array, recursion: Array, before: Array, cell: Array, limit: np.float32, outputs: Array
) -> ArrayTask:
    """A long short-term memory in one direction; see `recurrent.walk`.

    Args:
        entries: what the input adds to the sums, [Seq, Batch, gates * units], in the order of the
            walk.
        recursion: the values of a `PackedMatrix` [units, gates * units].
        before: the first states, [Batch, units].
        cell: the first cells, [Batch, units]; the last ones afterwards.
        limit: of the magnitude of a cell.
        outputs: [Seq, Batch, units], in the order of the walk.
    """
    room = recurrent.scratch_bytes(outputs.shape[1], outputs.shape[2])
    if room > SCRATCH_BYTES:
        raise PredictionError(f"a step of {outputs.shape[1]} rows takes {room} bytes")
    return _task(
        recurrent.walk, outputs.shape[0] * outputs.shape[1] * recursion.size, x=entries,
        line=entries.strides[0], step=entries.strides[1],
        offsets=AT_ITS_PLACE, weights=recursion, bias=before, addends=cell, most=limit, y=outputs,
        tile=tile_for(outputs.shape[1]), **_extents(outputs),
    )  # fmt: skip


def _extents(y: Array) -> dict[str, int]:
    height, width, columns = y.shape
    return {
        "y_line": y.strides[0], "y_step": y.strides[1],
        "height": height, "width": width, "columns": columns,
    }  # fmt: skip


def _check_rows(*matrices: Array) -> None:
    """Compiled code checks nothing, so this does."""
    for x in matrices:
        if x.ndim != 2 or (x.shape[1] > 1 and x.strides[1] != BYTES) or x.dtype != np.float32:
            raise PredictionError(f"rows {x.shape} do not lie in one piece")


def _parts(shape: Sequence[int], kind: Kind) -> Iterator[tuple[slice, ...]]:
    """Even parts of arrays in three axes, of the first that is long enough."""
    shares = shares_of(math.prod(shape) * _PASSES[kind])
    axis = next((axis for axis in (0, 1) if shape[axis] >= shares), int(np.argmax(shape)))
    for part in evenly(shape[axis], shares, LANES if axis == 2 else 1):
        yield (*(slice(None),) * axis, part)


def _in_three_axes(*arrays: Array) -> Iterator[list[Array]]:
    """Arrays of one shape as some in three axes: axes that lie evenly in all become one.

    The last axis of the last array, the result, lies in one piece, or has one value.
    """
    shape, result = arrays[0].shape, arrays[-1]
    groups: list[list[int]] = []
    for axis in (axis for axis, extent in enumerate(shape) if extent != 1):
        previous = groups[-1][-1] if groups else None
        if previous is not None and all(
            x.strides[previous] == x.strides[axis] * shape[axis] for x in arrays
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    behind = [1] if groups and result.strides[groups[-1][-1]] != BYTES else []
    before = [1] * (3 - len(groups) - len(behind))
    middle = [math.prod(shape[axis] for axis in group) for group in groups]
    extents = [*before, *middle, *behind]
    flat = [
        _strided(
            x,
            extents,
            [
                *(0 for _ in before),
                *(x.strides[group[-1]] for group in groups),
                *(0 for _ in behind),
            ],
        )
        for x in arrays
    ]
    for place in np.ndindex(*extents[:-3]):
        yield [x[place] for x in flat]


def _strided(x: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def _apart(x: Array, panels: int) -> Array:
    """The columns of a matrix [inner, m] as those of panels, [panels, inner, m / panels]."""
    inner, columns = x.shape
    width = columns // panels
    down, across = x.strides
    return _strided(x, (panels, inner, width), (width * across, down, across))
