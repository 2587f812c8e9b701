"""Samples that go through the tables of plans, each on one thread from its first task to its last.

A small network takes little longer than the Python around it, for which threads wait for each
other. Here Python comes before and after a number of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from mlferry.compiled.kinds import Kind, work
from mlferry.compiled.record import TASK
from mlferry.compiled.tasks import Rows, Table, change, place_of
from mlferry.compiled.vectors import Array, called, memory_at

# What is written of a plan, followed by the address and the size of each input and output.
_STATE, _ROWS, _COUNT, _WRONG = range(4)
_FIELDS = 4
_FREE, _IN_USE = range(2)


@dataclass(frozen=True)
class SamplePlan:
    """What computes a sample, in memory of its own.

    Attributes:
        table: all tasks.
        inputs: where the sample lies before the first one, of float32, in one piece.
        outputs: where the results lie after the last one, likewise.
        wrong: [1], where tasks write a 1 for an index that names nothing.
    """

    table: Table
    inputs: Sequence[Array]
    outputs: Sequence[Array]
    wrong: NDArray[np.int64]

    @cached_property
    def numbers(self) -> list[int]:
        """What compiled code reads of it."""
        rows = self.table.rows
        values = [*self.inputs, *self.outputs]
        sizes = chain.from_iterable((place_of(x), x.size) for x in values)
        return [_FREE, place_of(rows.view(np.byte)), rows.size, place_of(self.wrong), *sizes]


@called
def _copy(source: int, target: int, count: int) -> None:
    x, y = (
        carray(memory_at(source), count, np.float32),
        carray(memory_at(target), count, np.float32),
    )
    for index in range(count):
        y[index] = x[index]


@Kind
def run_sample(place: int, room: int) -> None:
    """One sample, by a plan that no other thread uses.

    At `x` lie the addresses of its inputs, of its results, and of a place for what its tasks write
    of wrong indices. At `weights` lie the numbers of `segments` plans, at least as many as threads,
    `weight_step` bytes from one to the next; they have `width` inputs and `height` outputs. `step`
    is the size of a row of their tables.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    values = carray(memory_at(task.x), task.width + task.height + 1, np.int64)
    fields = _FIELDS + 2 * (task.width + task.height)
    number = task.weights
    while not change(number, _FREE, _IN_USE):
        number += task.weight_step
        if number == task.weights + task.segments * task.weight_step:
            number = task.weights
    plan = carray(memory_at(number), fields, np.int64)
    wrong = carray(memory_at(plan[_WRONG]), 1, np.int64)
    wrong[0] = 0
    for each in range(task.width):
        at = _FIELDS + 2 * each
        _copy(values[each], plan[at], plan[at + 1])
    rows = carray(memory_at(plan[_ROWS]), plan[_COUNT], TASK)
    for index in range(rows.size):
        work(rows[index].code, plan[_ROWS] + index * task.step, room)
    for each in range(task.width, task.width + task.height):
        at = _FIELDS + 2 * each
        _copy(plan[at], values[each], plan[at + 1])
    carray(memory_at(values[task.width + task.height]), 1, np.int64)[0] = wrong[0]
    change(number, _IN_USE, _FREE)


class SampleTable(Rows):
    """Samples as tasks that may run at the same time.

    Args:
        plans: which compute them: the same for the same shapes, each in memory of its own. Of
            threads that take part there are at most as many.
        inputs: of all samples, [n, ...] of float32, in one piece, whose samples are of the sizes of
            the plans' inputs.

    Attributes:
        outputs: [n, ...], in the shapes of the plans' outputs, once the tasks have run.
        wrong: [n], 1 where an index of a sample names nothing.
    """

    def __init__(self, plans: Sequence[SamplePlan], inputs: Sequence[Array]) -> None:
        count = len(inputs[0])
        self.outputs = [np.empty((count, *x.shape), np.float32) for x in plans[0].outputs]
        self.wrong = np.zeros(count, np.int64)
        values = [*inputs, *self.outputs, self.wrong]
        self._plans = np.array([plan.numbers for plan in plans], np.int64)
        number = np.arange(count)
        self._places = np.stack([place_of(x) + x.strides[0] * number for x in values], axis=1)
        self._kept = plans, inputs  # whose memory the addresses are of
        rows = np.zeros(count, TASK)
        rows["code"] = run_sample.address
        rows["x"] = place_of(self._places) + self._places.strides[0] * number
        rows["weights"], rows["weight_step"] = place_of(self._plans), self._plans.strides[0]
        rows["segments"], rows["step"] = len(plans), TASK.itemsize
        rows["width"], rows["height"] = len(inputs), len(self.outputs)
        super().__init__(rows, [count])
