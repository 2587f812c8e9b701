"""TensorFlow's fused recurrent cells, composed of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of
from mlferry.converters.recurrent import one_less, stacked, steps_of
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.converters.values import Blob, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

# The order of the gates in the weights: input, candidate, forget, output.
_ORDERS = {"LSTMBlockCell": "icfo", "BlockLSTM": "icfo", "BlockLSTMV2": "ifco"}
_OUTPUTS = ("i", "cs", "f", "o", "ci", "co", "h")


def _sigmoid(context: Lowering, x: Blob) -> Blob:
    return context.emit("activation", x, sigmoid={})


def _tanh(context: Lowering, x: Blob) -> Blob:
    return context.emit("activation", x, tanh={})


class _Cell:
    """One step of a fused LSTM."""

    def __init__(
        self, context: Lowering, node: Node, matrix: Array, peepholes: Sequence[Any], bias: Array
    ) -> None:
        self.order = _ORDERS[node.op]
        forget = node.attrs.get("forget_bias", 0.0 if node.op == "BlockLSTMV2" else 1.0)
        self.clip = node.attrs.get("cell_clip", 0.0)
        peeps = node.attrs.get("use_peephole", False)
        self.peepholes = {
            gate: context.constant(array.reshape(1, -1))
            for gate, array in zip("ifo", peepholes, strict=True)
            if peeps
        }
        units = bias.size // 4
        shifted = bias.astype(np.float32).copy()
        place = self.order.index("f") * units
        shifted[place : place + units] += np.float32(forget)
        self.matrix = context.constant(matrix)
        self.bias = context.constant(shifted[None])

    def _seeing(self, context: Lowering, gate: str, x: Blob, c: Blob) -> Blob:
        """A gate, plus the cell's state times its peephole if there is one."""
        if gate not in self.peepholes:
            return x
        return context.add(x, context.multiply(c, self.peepholes[gate]))

    def step(self, context: Lowering, x: Blob, h: Blob, c: Blob) -> dict[str, Blob]:
        """What `_OUTPUTS` names, for one step."""
        both = context.concat([x, h], 1)
        product = context.matmul(both, self.matrix)
        parts = context.split(context.add(product, self.bias), 4, -1)
        gates = dict(zip(self.order, parts, strict=True))
        i, f = (_sigmoid(context, self._seeing(context, k, gates[k], c)) for k in "if")
        ci = _tanh(context, gates["c"])
        cs = context.add(context.multiply(ci, i), context.multiply(c, f))
        if self.clip > 0:
            cs = context.emit("clip", cs, minVal=-self.clip, maxVal=self.clip)
        o = _sigmoid(context, self._seeing(context, "o", gates["o"], cs))
        co = _tanh(context, cs)
        results = {"i": i, "cs": cs, "f": f, "o": o, "ci": ci, "co": co}
        return {**results, "h": context.multiply(co, o)}


def _cell(context: Lowering, node: Node, operands: Sequence[Any], first: int) -> _Cell:
    """Takes the matrix, the peepholes of the gates i, f and o, and the bias."""
    matrix, *peepholes, bias = (
        array_of(node, place, operands[place]) for place in range(first, first + 5)
    )
    return _Cell(context, node, matrix, peepholes, bias)


@op("LSTMBlockCell", raw=True)
def lstm_block_cell(context: Lowering, node: Node, *operands: Operand) -> list[Blob]:
    x, c, h, *_ = operands
    cell = _cell(context, node, operands, 3)
    output = cell.step(context, source(context, x), source(context, h), source(context, c))
    return [output[name] for name in _OUTPUTS]


@op("BlockLSTM", "BlockLSTMV2", raw=True)
def block_lstm(context: Lowering, node: Node, *operands: Operand) -> list[Blob]:
    """All steps [time, batch, inputs]; the given length must be that of the sequence."""
    length, x, first_c, first_h, *_ = operands
    steps = steps_of(context, source(context, x))
    if int(array_of(node, 0, length).ravel()[0]) != len(steps):
        raise ConversionError("a length that is shorter than the sequence")
    cell = _cell(context, node, operands, 4)
    h, c = source(context, first_h), source(context, first_c)
    rows: dict[str, list[Blob]] = {name: [] for name in _OUTPUTS}
    for part in steps:
        output = cell.step(context, part, h, c)
        h, c = output["h"], output["cs"]
        for name in _OUTPUTS:
            rows[name].append(output[name])
    return [stacked(context, rows[name]) for name in _OUTPUTS]


@op("GRUBlockCell", raw=True)
def gru_block_cell(context: Lowering, node: Node, *operands: Operand) -> list[Blob]:
    inputs, state = source(context, operands[0]), source(context, operands[1])
    arrays = (array_of(node, place, operands[place]) for place in range(2, 6))
    gate_matrix, matrix, gate_bias, bias = (context.constant(np.atleast_2d(a)) for a in arrays)

    def product(right: Blob, weights: Blob, shift: Blob) -> Blob:
        both = context.concat([inputs, right], 1)
        output = context.matmul(both, weights)
        return context.add(output, shift)

    r, u = context.split(_sigmoid(context, product(state, gate_matrix, gate_bias)), 2, -1)
    c = _tanh(context, product(context.multiply(r, state), matrix, bias))
    new = context.multiply(one_less(context, u), c)
    return [r, u, c, context.add(new, context.multiply(u, state))]
