"""Long short-term memory, all steps of a sequence in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.products import PackedProduct
from mlferry.compiled.vectors import (
    BYTES,
    FLAGS,
    LANES,
    REAL,
    WHOLE,
    Array,
    Instructions,
    address,
    arrays,
    kernel,
    tile_for,
    tile_of,
)
from mlferry.compiled.windows import multiply_tile

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


@kernel(
    arrays(4, "C"), arrays(2, "C"), FLAGS,
    arrays(3, "C"), arrays(3, "C", written=True), REAL, WHOLE, arrays(4, "C", written=True),
)  # fmt: skip
def walk(
    entries: Array,
    recursion: Array,
    backward: NDArray[np.bool_],
    before: Array,
    cell: Array,
    limit: np.float32,
    tile: int,
    outputs: Array,
) -> None:
    """All steps, in one or both directions.

    Args:
        entries: what the input adds to the sums, [directions, Seq, Batch, gates * units], in the
            order of the input.
        recursion: the values of a `PackedMatrix` [units, gates * units] for each direction.
        backward: whether each direction walks from the end.
        before: the first states, [directions, Batch, units].
        cell: the first cells, [directions, Batch, units]; the last ones afterwards.
        limit: of the magnitude of a cell.
        tile: rows at a time, at most Batch.
        outputs: [Seq, directions, Batch, units], in the order of the walk.
    """
    steps, directions, batch, units = outputs.shape
    columns = GATES * units
    sums = np.empty((batch, columns), np.float32)
    zeros, place = np.zeros(2 * LANES, np.float32), np.zeros(1, np.int64)
    infinite = np.float32(np.inf)
    for direction in range(directions):
        for step in range(steps):
            entry = entries[direction, steps - 1 - step if backward[direction] else step]
            state = before[direction] if step == 0 else outputs[step - 1, direction]
            for first in range(0, columns, 2 * LANES):
                panel = address(recursion[direction]) + first * units * BYTES
                done = 0
                while done < batch:
                    row = min(done, batch - tile)
                    numbers = (
                        tile, 2, address(state[row]), units * BYTES, address(place), 1, units,
                        panel, address(zeros), address(entry[row, first:]), columns * BYTES, 0,
                        address(sums[row, first:]), columns * BYTES,
                    )  # fmt: skip
                    multiply_tile(numbers, -infinite, infinite)
                    done = row + tile
            for row in range(batch):
                for unit in range(0, units, LANES):
                    places = (
                        address(sums[row, unit:]), units * BYTES,
                        address(cell[direction, row, unit:]),
                        address(outputs[step, direction, row, unit:]),
                    )  # fmt: skip
                    _cell_tile(places, -limit, limit)


@dataclass(frozen=True)
class PackedLSTM:
    """The weights of a long short-term memory in one or both directions.

    Attributes:
        inputs: the products of the input, one for each direction.
        recursions: [directions, ...], the values of a `PackedMatrix` each.
        units: how many there are; inside they are filled up to whole vectors.
    """

    inputs: Sequence[PackedProduct]
    recursions: Array
    units: int

    @classmethod
    def of(cls, inputs: Array, recursions: Array, biases: Array) -> PackedLSTM:
        """Pack weights, the gates in the order of `GATES`.

        Args:
            inputs: [directions, gates, units, C].
            recursions: [directions, gates, units, units].
            biases: [directions, gates, units].
        """
        units = inputs.shape[2]
        more = -units % LANES
        halves = np.array([0.5, 0.5, 0.5, 1], np.float32)[:, None, None]

        def matrix(gates: Array, rows: int) -> Array:
            """[gates, units, inner] as [inner, gates * units], with `rows` more rows."""
            filled = np.pad(gates * halves, ((0, 0), (0, more), (0, rows)))
            return filled.reshape(-1, filled.shape[2]).T

        return cls(
            [
                PackedProduct.of(matrix(weights, 0), matrix(bias[..., None], 0)[0])
                for weights, bias in zip(inputs, biases, strict=True)
            ],
            np.stack([PackedMatrix.of(matrix(gates, more)).values for gates in recursions]),
            units,
        )

    def __call__(
        self, x: Array, before: Array, cell: Array, limit: np.float32, backward: Sequence[bool]
    ) -> tuple[Array, Array]:
        """The outputs of all steps, and the last cells.

        Args:
            x: [Seq, Batch, C].
            before: the first states, [directions, Batch, units].
            cell: the first cells, [directions, Batch, units].
            limit: of the magnitude of a cell.
            backward: whether each direction walks from the end.

        Returns:
            [Seq, directions, Batch, units] in the order of the walk, [directions, Batch, units].
        """
        steps, batch, _ = x.shape
        more = ((0, 0), (0, 0), (0, -self.units % LANES))
        before, cell = (np.pad(state, more).astype(np.float32) for state in (before, cell))
        entries = np.stack([product(x.reshape(steps * batch, -1)) for product in self.inputs])
        outputs = np.empty((steps, *cell.shape), np.float32)
        walk(
            entries.reshape(len(self.inputs), steps, batch, -1), self.recursions,
            np.array(backward), before, cell, limit, tile_for(batch), outputs,
        )  # fmt: skip
        return outputs[..., : self.units], cell[..., : self.units]
