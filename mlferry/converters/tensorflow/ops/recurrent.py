"""TensorFlow's fused recurrent cells, composed of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of
from mlferry.converters.recurrent import binary, one_less, split, stacked, steps_of
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

# The order of the gates in the weights: input, candidate, forget, output.
_ORDERS = {"LSTMBlockCell": "icfo", "BlockLSTM": "icfo", "BlockLSTMV2": "ifco"}
_OUTPUTS = ("i", "cs", "f", "o", "ci", "co", "h")


def _sigmoid(low: Lowering, x: Blob) -> Blob:
    return low.layer("activation", x, layout=SOURCE, sigmoid={})


def _tanh(low: Lowering, x: Blob) -> Blob:
    return low.layer("activation", x, layout=SOURCE, tanh={})


class _Cell:
    """One step of a fused LSTM."""

    def __init__(
        self, low: Lowering, node: Node, matrix: Any, peepholes: Sequence[Any], bias: Any
    ) -> None:
        self.order = _ORDERS[node.op]
        forget = node.attrs.get("forget_bias", 0.0 if node.op == "BlockLSTMV2" else 1.0)
        self.clip = node.attrs.get("cell_clip", 0.0)
        peeps = node.attrs.get("use_peephole", False)
        self.peepholes = {
            gate: low.constant(array.reshape(1, -1))
            for gate, array in zip("ifo", peepholes, strict=True) if peeps
        }  # fmt: skip
        units = bias.size // 4
        shifted = bias.astype(np.float32).copy()
        place = self.order.index("f") * units
        shifted[place : place + units] += np.float32(forget)
        self.matrix = low.constant(matrix)
        self.bias = low.constant(shifted[None])

    def _seeing(self, low: Lowering, gate: str, x: Blob, c: Blob) -> Blob:
        """A gate that also looks at the cell's state, where there is a peephole."""
        if gate not in self.peepholes:
            return x
        return binary(low, "add", x, binary(low, "multiply", c, self.peepholes[gate]))

    def step(self, low: Lowering, x: Blob, h: Blob, c: Blob) -> dict[str, Blob]:
        """What `_OUTPUTS` names, for one step."""
        both = low.layer("concatND", x, h, layout=SOURCE, axis=1)
        product = low.layer("batchedMatmul", both, self.matrix, layout=SOURCE)
        parts = split(low, binary(low, "add", product, self.bias), 4)
        gates = dict(zip(self.order, parts, strict=True))
        i, f = (_sigmoid(low, self._seeing(low, k, gates[k], c)) for k in "if")
        ci = _tanh(low, gates["c"])
        cs = binary(low, "add", binary(low, "multiply", ci, i), binary(low, "multiply", c, f))
        if self.clip > 0:
            cs = low.layer("clip", cs, layout=SOURCE, minVal=-self.clip, maxVal=self.clip)
        o = _sigmoid(low, self._seeing(low, "o", gates["o"], cs))
        co = _tanh(low, cs)
        made = {"i": i, "cs": cs, "f": f, "o": o, "ci": ci, "co": co}
        return {**made, "h": binary(low, "multiply", co, o)}


def _cell(low: Lowering, node: Node, operands: Sequence[Any], first: int) -> _Cell:
    """The matrix, the peepholes of the gates i, f and o and the bias lie side by side."""
    matrix, *peepholes, bias = (
        array_of(node, place, operands[place]) for place in range(first, first + 5)
    )
    return _Cell(low, node, matrix, peepholes, bias)


@op("LSTMBlockCell", raw=True)
def lstm_block_cell(low: Lowering, node: Node, *operands: Any) -> list[Blob]:
    x, c, h, *_ = operands
    cell = _cell(low, node, operands, 3)
    made = cell.step(low, source(low, x), source(low, h), source(low, c))
    return [made[name] for name in _OUTPUTS]


@op("BlockLSTM", "BlockLSTMV2", raw=True)
def block_lstm(low: Lowering, node: Node, *operands: Any) -> list[Blob]:
    """All steps [time, batch, inputs], where the length that is given is that of the sequence."""
    length, x, first_c, first_h, *_ = operands
    steps = steps_of(low, source(low, x))
    if int(array_of(node, 0, length).ravel()[0]) != len(steps):
        raise ConversionError("a length that is shorter than the sequence")
    cell = _cell(low, node, operands, 4)
    h, c = source(low, first_h), source(low, first_c)
    rows: dict[str, list[Blob]] = {name: [] for name in _OUTPUTS}
    for part in steps:
        made = cell.step(low, part, h, c)
        h, c = made["h"], made["cs"]
        for name in _OUTPUTS:
            rows[name].append(made[name])
    return [stacked(low, rows[name]) for name in _OUTPUTS]


@op("GRUBlockCell", raw=True)
def gru_block_cell(low: Lowering, node: Node, *operands: Any) -> list[Blob]:
    inputs, state = source(low, operands[0]), source(low, operands[1])
    arrays = (array_of(node, place, operands[place]) for place in range(2, 6))
    gate_matrix, matrix, gate_bias, bias = (low.constant(np.atleast_2d(a)) for a in arrays)

    def product(right: Blob, weights: Blob, shift: Blob) -> Blob:
        both = low.layer("concatND", inputs, right, layout=SOURCE, axis=1)
        made = low.layer("batchedMatmul", both, weights, layout=SOURCE)
        return binary(low, "add", made, shift)

    r, u = split(low, _sigmoid(low, product(state, gate_matrix, gate_bias)), 2)
    c = _tanh(low, product(binary(low, "multiply", r, state), matrix, bias))
    new = binary(low, "multiply", one_less(low, u), c)
    return [r, u, c, binary(low, "add", new, binary(low, "multiply", u, state))]
