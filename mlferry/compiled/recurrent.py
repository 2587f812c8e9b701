"""Long short-term memory, all steps of a sequence in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.products import PackedProduct
from mlferry.compiled.vectors import (
    BYTES,
    LANES,
    REAL,
    WHOLE,
    YES,
    Array,
    Instructions,
    address,
    arrays,
    kernel,
    tile_for,
    tile_of,
)
from mlferry.compiled.windows import multiply_tile, vectors_for
from mlferry.lanes import in_parts

_ROWS = 8  # of a batch that go together, so that weights are read once for several
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
    arrays(3, "C"), arrays(1, "C"), YES, arrays(2, "C"), arrays(2, "C", written=True), REAL, WHOLE,
    arrays(3, written=True),
)  # fmt: skip
def walk(
    entries: Array,
    recursion: Array,
    backward: bool,
    before: Array,
    cell: Array,
    limit: np.float32,
    tile: int,
    outputs: Array,
) -> None:
    """All steps in one direction.

    Args:
        entries: what the input adds to the sums, [Seq, Batch, gates * units], in the order of the
            input.
        recursion: the values of a `PackedMatrix` [units, gates * units].
        backward: whether it walks from the end.
        before: the first states, [Batch, units].
        cell: the first cells, [Batch, units]; the last ones afterwards.
        limit: of the magnitude of a cell.
        tile: rows at a time, at most Batch.
        outputs: [Seq, Batch, units], in the order of the walk; units lie side by side.
    """
    steps, batch, units = outputs.shape
    columns = GATES * units
    sums = np.empty((batch, columns), np.float32)
    zeros = np.zeros(columns, np.float32)
    place = np.zeros(1, np.int64)
    infinite = np.float32(np.inf)
    for step in range(steps):
        entry = entries[steps - 1 - step if backward else step]
        state, line = address(before), units * BYTES
        if step > 0:
            state, line = address(outputs[step - 1]), outputs.strides[1]
        first = 0
        while first < columns:
            vectors = vectors_for(tile, columns - first)
            panel = address(recursion) + first * units * BYTES
            done = 0
            while done < batch:
                row = min(done, batch - tile)
                numbers = (
                    tile, vectors, state + row * line, line, address(place), 1, units, panel,
                    address(zeros), address(entry[row, first:]), columns * BYTES, 0,
                    address(sums[row, first:]), columns * BYTES,
                )  # fmt: skip
                multiply_tile(numbers, -infinite, infinite)
                done = row + tile
            first += vectors * LANES
        for row in range(batch):
            for unit in range(0, units, LANES):
                places = (
                    address(sums[row, unit:]), units * BYTES, address(cell[row, unit:]),
                    address(outputs[step, row, unit:]),
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
        directions = len(self.inputs)
        before, cell = map(self._filled, (before, cell))
        outputs = np.empty((steps, *cell.shape), np.float32)
        blocks = -(-batch // _ROWS)

        def some(part: slice) -> None:
            for number in range(part.start, min(part.stop, directions * blocks)):
                direction, block = divmod(number, blocks)
                rows = slice(block * _ROWS, min(batch, (block + 1) * _ROWS))
                mine = np.ascontiguousarray(x[:, rows])
                entries = self.inputs[direction](mine.reshape(-1, x.shape[2]))
                walk(
                    entries.reshape(*mine.shape[:2], -1), self.recursions[direction],
                    backward[direction], before[direction, rows], cell[direction, rows], limit,
                    tile_for(mine.shape[1]), outputs[:, direction, rows],
                )  # fmt: skip

        in_parts(some, directions * blocks, steps * batch * self._multiplications)
        return outputs[..., : self.units], cell[..., : self.units]

    def _filled(self, states: Array) -> Array:
        """A copy, its units filled up to whole vectors."""
        filled = np.zeros((*states.shape[:2], self.units + -self.units % LANES), np.float32)
        filled[..., : self.units] = states
        return filled

    @property
    def _multiplications(self) -> int:
        """Of a step of one sample, in all directions."""
        inner = sum(product.weights.values.size for product in self.inputs)
        return inner + self.recursions.size
