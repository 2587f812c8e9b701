"""Long short-term memory, all steps of a sequence in one task."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numba.np.numpy_support import carray

from mlferry.compiled.kinds import Kind
from mlferry.compiled.record import TASK
from mlferry.compiled.vectors import BYTES, LANES, Instructions, address, memory_at, tile_of
from mlferry.compiled.windows import multiply_tile, vectors_for

GATES = 4  # input, forget and output gate, and block input, in this order


@tile_of("gates", "gate_step", "cell", "output")
def _cell_tile(code: Instructions, args: SimpleNamespace) -> None:
    """One vector of units: cell and output of a step.

    The sums of the gates are halved, as a sigmoid of x is (tanh(x / 2) + 1) / 2; the cell is
    limited to `least` and `most`.
    """
    builder, half = code.builder, code.constant(0.5)
    sums = [
        code.tanh(code.load(code.at(args.gates, gate, args.gate_step))) for gate in range(GATES)
    ]
    into, kept, shown = (code.multiply_add(value, half, half) for value in sums[:3])
    cell = code.multiply_add(code.load(args.cell), kept, builder.fmul(into, sums[3]))
    cell = code.within(cell, code.splat(args.least), code.splat(args.most))
    code.store(cell, args.cell)
    code.store(builder.fmul(code.tanh(cell), shown), args.output)


def scratch_bytes(rows: int, units: int) -> int:
    """How much of the scratch `walk` takes: no bias, and the sums of some rows of a batch."""
    return (1 + rows) * GATES * units * BYTES


@Kind
def walk(place: int, room: int) -> None:
    """All steps of a long short-term memory in one direction.

    At `x` lies what the input adds to the sums, [height, width, gates * columns], in the order of
    the walk, at `weights` the values of a `PackedMatrix` [columns, gates * columns], at `bias` the
    first states, [width, columns], and at `addends` the first cells, likewise, which are the last
    ones afterwards. `most` limits the magnitude of a cell. The outputs are [height, width,
    columns]; columns are units, filled up to whole vectors.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    units = task.columns
    columns = GATES * units
    zeros = carray(memory_at(room), columns, np.float32)
    sums = carray(memory_at(room + columns * BYTES), (task.width, columns), np.float32)
    zeros[:] = 0
    infinite = np.float32(np.inf)
    state, line = task.bias, units * BYTES
    for step in range(task.height):
        entry, output = task.x + step * task.line, task.y + step * task.y_line
        first = 0
        while first < columns:
            vectors = vectors_for(task.tile, columns - first)
            panel = task.weights + first * units * BYTES
            done = 0
            while done < task.width:
                row = min(done, task.width - task.tile)
                numbers = (
                    task.tile, vectors, task.tile, state + row * line, line, 0,
                    task.offsets, 1, units, panel, panel, 0, address(zeros),
                    entry + row * task.step + first * BYTES, task.step, 0, 0,
                    address(sums[row, first:]), columns * BYTES, 0,
                )  # fmt: skip
                multiply_tile(numbers, -infinite, infinite)
                done = row + task.tile
            first += vectors * LANES
        for row in range(task.width):
            for unit in range(0, units, LANES):
                places = (
                    address(sums[row, unit:]), units * BYTES,
                    task.addends + (row * units + unit) * BYTES,
                    output + row * task.y_step + unit * BYTES,
                )  # fmt: skip
                _cell_tile(places, -task.most, task.most)
        state, line = output, task.y_step
