"""What one step of Keras's recurrent layers computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.registry import activation_of, described, weight
from mlferry.converters.layout import Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.recurrent import GRU, LSTM, Cell, Gates, Simple
from mlferry.errors import ConversionError
from mlferry.spec.shapes.rules import Shape

Matrix = NDArray[np.float32]
_LSTM_ORDER = (0, 3, 1, 2)  # Keras: i, f, c, o


@dataclass
class Stacked:
    """Cells one above the other; each reads the output of the one below."""

    cells: list[Cell]
    counts: list[int]

    def project(self, low: Lowering, x: Blob) -> Blob:
        """See `Cell`."""
        return self.cells[0].project(low, x)

    def step(self, low: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `Cell`."""
        made: list[Blob] = []
        for index, (cell, count) in enumerate(zip(self.cells, self.counts, strict=True)):
            given = x if not index else cell.project(low, x)
            own = states[len(made) : len(made) + count]
            x, new = cell.step(low, given, own)
            made += new
        return x, made


def _gated(
    low: Lowering, node: Node, kind: type[Gates], order: Sequence[int], names: Sequence[str]
) -> Gates:
    """The weights of a cell, its gates in ONNX's order."""
    attrs, units, gates = node.attrs, int(node.attrs["units"]), len(order)

    def turned(array: Matrix) -> Matrix:
        """[..., gates * units] as [gates * units, ...]."""
        blocks = np.moveaxis(array, -1, 0).reshape(gates, units, *array.shape[:-1])
        return np.ascontiguousarray(blocks[list(order)].reshape(gates * units, *array.shape[:-1]))

    behind = kind is GRU and bool(attrs.get("reset_after", False))
    w = turned(weight(node, "kernel", None, gates * units))
    r = turned(weight(node, "recurrent_kernel", units, gates * units))
    wb = rb = None
    if attrs.get("use_bias", True):
        if behind:
            both = weight(node, "bias", 2, gates * units)
            wb, rb = turned(both[0]), turned(both[1])
        else:
            wb = turned(weight(node, "bias", gates * units))
    functions = [activation_of(low, attrs.get(name), node.name) for name in names]
    return kind(w, r, wb, rb, functions, behind=behind)


def _simple(low: Lowering, node: Node) -> Cell:
    return _gated(low, node, Simple, (0,), ("activation",))


def _gru(low: Lowering, node: Node) -> Cell:
    names = ("recurrent_activation", "activation")
    return _gated(low, node, GRU, (0, 1, 2), names)


def _lstm(low: Lowering, node: Node) -> Cell:
    names = ("recurrent_activation", "activation", "activation")
    return _gated(low, node, LSTM, _LSTM_ORDER, names)


def _stacked(low: Lowering, node: Node) -> Cell:
    node.attrs["cells"]
    parts = list(node.parts.values())
    return Stacked([cell_of(low, part) for part in parts], [len(sizes(part)) for part in parts])


_CELLS: dict[str, Callable[[Lowering, Node], Cell]] = {
    "SimpleRNNCell": _simple,
    "GRUCell": _gru,
    "LSTMCell": _lstm,
    "StackedRNNCells": _stacked,
}


def cell_of(low: Lowering, node: Node) -> Cell:
    """The cell that a node stands for.

    Raises:
        ConversionError: it is none of Keras's own.
    """
    if node.op not in _CELLS:
        raise ConversionError(f"the cell {node.op}: {', '.join(_CELLS)} can be converted")
    return _CELLS[node.op](low, node)


def sizes(node: Node) -> list[int]:
    """The sizes of a cell's states."""
    if node.op == "StackedRNNCells":
        return [size for part in node.parts.values() for size in sizes(part)]
    units = node.get_config().get("units")
    if node.op not in _CELLS or not isinstance(units, int):
        raise ConversionError(f"the cell {node.op}: {', '.join(_CELLS)} can be converted")
    return [units] * (2 if node.op == "LSTMCell" else 1)


def states_of(node: Node, shape: Shape) -> list[Shape]:
    """The shapes of the states of a recurrent layer, for an input [batch, time, ...]."""
    if node.op == "Bidirectional":
        return [s for part in node.parts.values() for s in states_of(part, shape)]
    return [(shape[0], size) for size in sizes(node.parts["cell"])]


def native(low: Lowering, node: Node, names: Sequence[str]) -> list[dict[str, Any]] | None:
    """Core ML's own activations for those of a cell, where its layers compute them exactly.

    They clip what an activation gets at 50, where these are as good as constant.
    """
    bounded: dict[str, dict[str, Any]] = {"tanh": {"tanh": {}}, "sigmoid": {"sigmoid": {}}}
    if low.graph.version < 3:
        bounded["hard_sigmoid"] = {"sigmoidHard": {"alpha": 0.2, "beta": 0.5}}
    found = [described(node.attrs.get(name), low.graph.version) for name in names]
    if any(name not in bounded or options for name, options in found):
        return None
    return [bounded[name] for name, _ in found]
