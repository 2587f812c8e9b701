"""Long short-term memory: its weights, and its steps as tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.compiled import arrays
from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.products import PackedProduct
from mlferry.compiled.recurrent import scratch_bytes
from mlferry.compiled.tasks import Table
from mlferry.compiled.vectors import LANES, SCRATCH_BYTES, Array
from mlferry.lanes import WORTH_A_THREAD, run_steps

_ROWS = 8  # of a batch that go together, so that weights are read once for several


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
        steps, batch, channels = x.shape
        memory = np.zeros(self.memory(steps, batch), np.float32)
        first, last, outputs = self.parts_of(memory)
        first[..., : self.units], last[..., : self.units] = before, cell
        rows = np.ascontiguousarray(x).reshape(-1, channels)
        entries = [product(rows).reshape(steps, batch, -1) for product in self.inputs]
        table = Table([self.walks(entries, first, last, limit, backward, outputs)])
        if steps * batch * self.recursions.size < 2 * WORTH_A_THREAD:
            table()
        else:
            run_steps([table])
        return outputs[..., : self.units], last[..., : self.units]

    def memory(self, steps: int, batch: int) -> tuple[int, ...]:
        """The shape of the memory that walks need; see `parts_of`."""
        padded = self.units + -self.units % LANES
        return len(self.inputs), steps + 2, batch, padded

    def parts_of(self, memory: Array) -> tuple[Array, Array, Array]:
        """The first states, the cells, and the outputs, as `walks` takes them.

        What belongs to one direction lies together: a processor reads ahead, so that a thread slows
        down another one that writes nearby.
        """
        by_kind = memory.swapaxes(0, 1)
        return by_kind[0], by_kind[1], by_kind[2:]

    def walks(
        self,
        entries: Sequence[Array],
        before: Array,
        cell: Array,
        limit: np.float32,
        backward: Sequence[bool],
        outputs: Array,
    ) -> list[arrays.ArrayTask]:
        """What walks through the sequence: some rows of the batch in one direction each.

        Args:
            entries: of each direction what the input adds to the sums, [Seq, Batch, gates * units].
            before: the first states, [directions, Batch, units], in whole vectors.
            cell: the first cells, likewise; the last ones afterwards.
            limit: of the magnitude of a cell.
            backward: whether each direction walks from the end.
            outputs: [Seq, directions, Batch, units], in the order of the walk.
        """
        most = SCRATCH_BYTES // scratch_bytes(0, outputs.shape[3]) - 1
        rows = max(1, min(_ROWS, most))
        blocks = range(0, outputs.shape[2], rows)
        return [
            arrays.walked(
                (x[::-1] if back else x)[:, first : first + rows], recursion,
                before[direction, first : first + rows], cell[direction, first : first + rows],
                limit, outputs[:, direction, first : first + rows],
            )
            for direction, (x, recursion, back) in enumerate(
                zip(entries, self.recursions, backward, strict=True)
            )
            for first in blocks
        ]  # fmt: skip
