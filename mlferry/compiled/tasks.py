"""Steps of a plan that compiled code goes through by itself, on one or several threads.

A step is a number of tasks, in any order. To call a kernel, or to wait for another thread, takes
Python as long as a small layer. Here a thread takes the next task, or waits for those of others,
within nanoseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any, Protocol, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.base import BaseContext
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from mlferry import lanes
from mlferry.compiled.kinds import Kind, work
from mlferry.compiled.record import AT_ITS_PLACE, TABLE, TASK
from mlferry.compiled.vectors import (
    BYTES,
    INT,
    LANES,
    MACHINE,
    SCRATCH,
    WHOLE,
    Array,
    Value,
    address,
    called,
    instruction,
    kernel,
    memory_at,
    scratch,
)
from mlferry.compiled.windows import copy_pixels, fill_pixels
from mlferry.lanes import Part, Walk, lane_count
from mlferry.memory import CACHE_LINE

as_strided = np.lib.stride_tricks.as_strided
_INFINITE = np.float32(np.inf)
_LEAST = 100_000  # multiplications of a task: fewer take no longer than sharing them
_SPARE = 4  # tasks of a step for each core, as threads are not equally fast
_MOVED = 1 << 14  # values that a task writes, at least
_MOMENT = 40_000  # how often a helper asks for more, in some milliseconds
_PATIENCE = 1_000_000  # how often a thread asks whether others have ended: under a millisecond


class TableTask(Protocol):
    """Something that compiled code does, on one thread."""

    @property
    def kind(self) -> Kind:
        """What it does."""

    def row(self) -> tuple[float, ...]:
        """The row of a table; see `numbers_of`."""


@dataclass(frozen=True)
class MapTask:
    """What compiled code does for some rows of a map.

    Attributes:
        kind: which one; see `windows` and `winograd`.
        y: the result, [H, W, C].
        x: [H', W', C'], which starts where the windows of the first pixel start.
        steps: bytes from one row of windows to the next, and from one window to the next.
        offsets: where the segments of a window lie, in bytes.
        run: values of a segment.
        weights: those of `PackedWeights`, or for functions of windows [pixels of a window, C].
        weight_step: bytes from one row of weights to the next; 0 for one row.
        bias: as many values as the weights have columns.
        addends: [H, W, C] to add, or None.
        rounds: whether every result is rounded to float16.
        least: of the results; what `fill_pixels` writes.
        most: of the results.
        tile: pixels at a time, at most W; in Winograd's tiles, tiles at a time that are multiplied.
        side: of Winograd's tiles, of the result.
        number: of Winograd's tiles that are transformed at a time, at most all.
        function: which of a kind that has several.
    """

    kind: Kind
    y: Array
    x: Array
    steps: tuple[int, int] = (0, 0)
    offsets: NDArray[np.int64] = field(default_factory=lambda: AT_ITS_PLACE)
    run: int = 1
    weights: Array | None = None
    weight_step: int = 0
    bias: Array | None = None
    addends: Array | None = None
    rounds: bool = False
    least: np.float32 = -_INFINITE
    most: np.float32 = _INFINITE
    tile: int = 1
    side: int = 0
    number: int = 0
    function: int = 0

    def row(self) -> tuple[float, ...]:
        """See `TableTask`."""
        added = (0, 0) if self.addends is None else self.addends.strides[:2]
        height, width, columns = self.y.shape
        return numbers_of(
            code=self.kind.address, function=self.function, x=self.x, line=self.steps[0],
            step=self.steps[1], offsets=self.offsets, segments=self.offsets.size, run=self.run,
            weights=self.weights, weight_step=self.weight_step, bias=self.bias,
            addends=self.addends, addend_line=added[0], addend_step=added[1],
            rounds=int(self.rounds), y=self.y, y_line=self.y.strides[0],
            y_step=self.y.strides[1], height=height, width=width, columns=columns, tile=self.tile,
            side=self.side, number=self.number, least=self.least,
            most=self.most,
        )  # fmt: skip


Number: TypeAlias = NDArray[Any] | np.float32 | float | None


def place_of(array: NDArray[Any]) -> int:
    """Where an array starts."""
    place: int = array.__array_interface__["data"][0]  # faster than its `ctypes`
    return place


def _number(value: Number) -> float:
    """A number, or where an array starts; 0 for None."""
    if isinstance(value, np.ndarray):
        return place_of(value)
    return 0 if value is None else float(value) if isinstance(value, np.float32) else value


_DEFAULTS: dict[str, float] = {
    **dict.fromkeys(TASK.names or (), 0), "least": -math.inf, "most": math.inf
}  # fmt: skip


def numbers_of(**values: Number) -> tuple[float, ...]:
    """The row of a table, of numbers and arrays by their names in `record.TASK`."""
    given = {name: _number(value) for name, value in values.items()}
    return tuple({**_DEFAULTS, **given}.values())


def shares_of(multiplications: int) -> int:
    """How many tasks are worth it for work that takes as long as so many multiplications.

    As many for each core, where there are enough.
    """
    lanes = max(1, lane_count(multiplications))
    shares = max(1, min(_SPARE * lanes, multiplications // _LEAST))
    return shares - shares % lanes if shares > lanes else shares


def evenly(extent: int, shares: int, unit: int = 1) -> list[slice]:
    """Parts of an axis that differ by a unit at most, and so do those of threads that share them.

    Args:
        extent: of the axis.
        shares: how many parts, if there are as many units.
        unit: what no part divides; the last one may be shorter.
    """
    units = -(-extent // unit)
    count = max(1, min(shares, units))
    starts = [unit * (units * number // count) for number in range(count)]
    return list(map(slice, starts, [*starts[1:], extent]))


def columns_evenly(count: int, shares: int, panel: int) -> list[slice]:
    """As `evenly`, in whole panels of columns but the last, which has a vector at least."""
    panels = max(1, (count + panel - LANES) // panel)
    return [
        slice(part.start * panel, count if part.stop == panels else part.stop * panel)
        for part in evenly(panels, shares)
    ]


def _pointer(code: ir.IRBuilder, place: Value) -> Value:
    """To a number that other threads change, too."""
    return code.inttoptr(place, INT.as_pointer())


@instruction
def _take(typing: object, place: types.Type) -> Any:
    """Add one to the number at an address; gives the one before."""

    def emit(_: BaseContext, code: ir.IRBuilder, __: object, arguments: Sequence[Value]) -> Value:
        pointer = _pointer(code, *arguments)
        return code.atomic_rmw("add", pointer, ir.Constant(INT, 1), "acq_rel")

    return types.intp(place), emit


@instruction
def _look(typing: object, place: types.Type) -> Any:
    """The number at an address."""

    def emit(_: BaseContext, code: ir.IRBuilder, __: object, arguments: Sequence[Value]) -> Value:
        return code.load_atomic(_pointer(code, *arguments), "acquire", 8)

    return types.intp(place), emit


@instruction
def change(typing: object, place: types.Type, old: types.Type, new: types.Type) -> Any:
    """Write a number at an address where another one is; gives whether that was so."""

    def emit(_: BaseContext, code: ir.IRBuilder, __: object, arguments: Sequence[Value]) -> Value:
        place, *numbers = arguments
        result = code.cmpxchg(_pointer(code, place), *numbers, "acq_rel", "acquire")
        return code.extract_value(result, 1)

    return types.boolean(place, types.intp, types.intp), emit


@instruction
def _pause(typing: object) -> Any:
    """Let the other thread of the core go first for some nanoseconds."""

    def emit(
        context: BaseContext, code: ir.IRBuilder, _: object, arguments: Sequence[Value]
    ) -> Value:
        if MACHINE.pause:
            instruction = ir.FunctionType(ir.VoidType(), [])
            code.call(cgutils.get_or_insert_function(code.module, instruction, MACHINE.pause), [])
        return context.get_dummy_value()

    return types.void(), emit


@called
def _share(count: int, lane: int, lanes: int) -> int:
    """Where the share of a thread starts, of so many tasks; there is a last one that ends them."""
    return (count * lane + lanes - 1) // lanes


@called
def _all_ended(counts: NDArray[np.int64], step: int) -> int:
    total = 0
    for lane in range(counts.shape[0]):
        total += _look(address(counts[lane, step, _ENDED:]))
    return total


@called
def _walk(
    table: NDArray[Any],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    step: int,
    patience: int,
    lane: int,
    scratch: int,
) -> int:
    """One thread's way through the steps; see `_go_through`."""
    lanes = counts.shape[0]
    while step < starts.size - 1:
        count = starts[step + 1] - starts[step]
        ended = address(counts[lane, step, _ENDED:])
        for turn in range(lanes):
            owner = (lane + turn) % lanes
            first, end = _share(count, owner, lanes), _share(count, owner + 1, lanes)
            taken = address(counts[owner, step, _TAKEN:])
            while _look(taken) < end - first:
                place = starts[step] + first + _take(taken)
                if place < starts[step] + end:
                    work(table[place].code, address(table[place:]), scratch)
                    _take(ended)
        asked = 0
        while _all_ended(counts, step) < count:
            asked += 1
            if asked > patience:
                return step
        step += 1
    return step


_NUMBERS, _RECORDS = (types.Array(types.int64, rank, "C") for rank in (1, 3))
# What a mailbox holds: the state of its helper, where the table is that is posted, which of the
# threads it is then, and how often it took part. A helper goes to and comes from work, and goes
# away; who leads it posts, and withdraws at the end.
_STATE, _TABLE, _STARTS, _COUNTS, _STEPS, _TASKS, _LANE, _LANES, _TIMES = range(9)
_FIELDS = 9
_AWAY, _WAITS, _POSTED, _WORKS = range(4)
# What is counted for each thread and step: how many of its tasks are taken, by whomever, and how
# many tasks it has ended. Each record fills a line of a cache, as others wait for one that changes.
_TAKEN, _ENDED = range(2)
_RECORD = CACHE_LINE // 8
_NOBODY = np.zeros(0, np.int64)


@kernel(TABLE, _NUMBERS, _RECORDS, WHOLE, WHOLE, WHOLE, SCRATCH, _NUMBERS, returns=WHOLE)
def _go_through(
    table: NDArray[Any],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    step: int,
    patience: int,
    lane: int,
    scratch: Array,
    mailboxes: NDArray[np.int64],
) -> int:
    """One thread's way through the steps.

    Each takes its share of the tasks of a step, and then what is left of those of others. So a
    thread mostly reads what it has written, and the weights that it has read before, which are in
    its cache, and counts by itself: a number that another core has changed takes as long to reach
    as a short task.

    Args:
        table: the tasks of all steps.
        starts: the first task of each step, and the number of all.
        counts: [threads, steps, ...], a record for each.
        step: where to start.
        patience: how often to ask whether others have ended.
        lane: which of the threads it is.
        scratch: see `vectors.scratch`.
        mailboxes: where those of helpers are that may take part.

    Returns:
        the step of which others have not ended their tasks; at the end, the number of steps.
    """
    for number, place in enumerate(mailboxes):
        mailbox = carray(memory_at(place), _FIELDS, np.int64)
        mailbox[_TABLE], mailbox[_STARTS] = address(table), address(starts)
        mailbox[_COUNTS], mailbox[_STEPS] = address(counts), starts.size - 1
        mailbox[_TASKS] = table.size
        mailbox[_LANE], mailbox[_LANES] = number + 1, counts.shape[0]
        change(place, _WAITS, _POSTED)
    step = _walk(table, starts, counts, step, patience, lane, address(scratch))
    for place in mailboxes:
        change(place, _POSTED, _WAITS)
    return step


@kernel(_NUMBERS, WHOLE, WHOLE, SCRATCH)
def _attend(mailbox: NDArray[np.int64], moment: int, patience: int, scratch: Array) -> None:
    """A helper's work on what is posted, until nothing is for a moment, or it is called away."""
    place, asked = address(mailbox), 0
    state = _look(place)
    while state != _AWAY:
        if state == _POSTED and change(place, _POSTED, _WORKS):
            mailbox[_TIMES] += 1
            lanes, steps = mailbox[_LANES], mailbox[_STEPS]
            _walk(
                carray(memory_at(mailbox[_TABLE]), mailbox[_TASKS], TASK),
                carray(memory_at(mailbox[_STARTS]), steps + 1, np.int64),
                carray(memory_at(mailbox[_COUNTS]), (lanes, steps, _RECORD), np.int64),
                0, patience, mailbox[_LANE], address(scratch),
            )  # fmt: skip
            change(place, _WORKS, _WAITS)
            asked = 0
        asked += 1
        if asked > moment:
            change(place, _WAITS, _AWAY)
        _pause()
        state = _look(place)


class TableMailbox(lanes.Mailbox):
    """Where a helper looks for the next `Table`; all of its work is in compiled code."""

    def __init__(self) -> None:
        self._numbers = np.zeros(_FIELDS, np.int64)
        self._fields = self._numbers.data  # the same; reading one makes no number of NumPy's
        self._kept: object = None
        self._is_attended = False  # until `attend` has ended, whatever the state is

    def open(self) -> bool:
        """See `lanes.Mailbox`."""
        if self._is_attended:
            return False
        self._is_attended = True
        self._numbers[_STATE] = _WAITS
        return True

    def attend(self) -> None:
        """See `lanes.Mailbox`."""
        try:
            _attend(self._numbers, _MOMENT, _PATIENCE, scratch())
        finally:
            self._is_attended = False

    def is_open(self) -> bool:
        """See `lanes.Mailbox`."""
        return self._fields[_STATE] == _WAITS

    def is_in_use(self) -> bool:
        """See `lanes.Mailbox`."""
        return self._fields[_STATE] == _WORKS

    def times(self) -> int:
        """See `lanes.Mailbox`."""
        return self._fields[_TIMES]

    def close(self) -> None:
        """See `lanes.Mailbox`."""
        self._numbers[_STATE] = _AWAY

    def keep(self, *posted: object) -> int:
        """Keep what is about to be posted, in place of what was; returns where the numbers are."""
        self._kept = posted
        return place_of(self._numbers)


class Rows(Walk):
    """Steps of tasks as compiled code reads them.

    Args:
        rows: the tasks of all steps, [n] of `record.TASK`.
        counts: how many each step has. They may run at the same time; those of the next step start
            when all have ended.

    Attributes:
        rows: see above.
    """

    def __init__(self, rows: NDArray[Any], counts: Sequence[int]) -> None:
        self.rows = rows
        self._starts = np.array([0, *accumulate(counts)], np.int64)
        super().__init__(len(counts), lane_count(max(counts, default=0)))

    def begin(self, threads: int, mailboxes: Sequence[lanes.Mailbox] = ()) -> lanes.Way:
        """See `Walk`."""
        counts = np.zeros((threads, self.length, _RECORD), np.int64)
        posted = _NOBODY
        if mailboxes:
            posted = np.array([each.keep(self, counts) for each in mailboxes], np.int64)
        return lambda step, thread: _go_through(
            self.rows, self._starts, counts, step, _PATIENCE, thread, scratch(), posted
        )

    def mailbox(self) -> lanes.Mailbox:
        """See `Walk`."""
        return TableMailbox()


class Table(Rows):
    """Steps of tasks.

    Args:
        steps: tasks that may run at the same time; the next ones start when all have ended.
    """

    def __init__(self, steps: Sequence[Sequence[TableTask]]) -> None:
        self.steps = list(steps)  # whose arrays the addresses are of
        rows = np.array([task.row() for task in chain(*steps)], TASK)
        super().__init__(rows, list(map(len, steps)))


def joined(runs: Iterable[Part]) -> Iterator[Part]:
    """What a plan does, tables next to each other made one."""
    steps: list[Sequence[TableTask]] = []
    for run in runs:
        if isinstance(run, Table):
            steps += run.steps
            continue
        if steps:
            yield Table(steps)
            steps = []
        yield run
    if steps:
        yield Table(steps)


def filled(maps: Sequence[Array], value: float) -> Table:
    """Writes a value to maps [H, W, C]."""
    return Table([[task for y in maps for task in _moving(fill_pixels, y, y, np.float32(value))]])


def copied(x: Array, y: Array) -> Table:
    """Copies a map [H, W, C]."""
    return Table([_moving(copy_pixels, x, y)])


def _moving(kind: Kind, x: Array, y: Array, value: np.float32 = _INFINITE) -> list[MapTask]:
    """Tasks for some rows each; lines whose pixels lie side by side are one pixel."""
    height, width, channels = y.shape
    if all(pixels.strides[1] == channels * BYTES for pixels in (x, y)):
        x, y = (
            as_strided(z, (height, 1, width * channels), (z.strides[0], 0, BYTES)) for z in (x, y)
        )
    number = -(-height // lane_count(max(1, y.size // _MOVED)))
    return [
        MapTask(kind, y[top : top + number], x[top:], (x.strides[0], x.strides[1]), least=value)
        for top in range(0, height, number)
    ]
