"""One step of Keras's recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import Windows, convolved, convolved_by, same_pairs
from mlferry.converters.graph import Attribute, Node
from mlferry.converters.keras.ops.registry import (
    activation_of,
    choice,
    described,
    sizes as sizes_of,
    weight,
)
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import channels_first, extent, known
from mlferry.converters.recurrent import (
    GRU,
    LSTM,
    Activation,
    Function,
    Gates,
    RecurrentCell,
    Simple,
)
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape, product
from mlferry.numerics.windows import spans_of

Matrix = NDArray[np.float32]
_ACTIVATIONS = ("recurrent_activation", "activation")


@dataclass
class Stacked:
    """Stacked cells; each reads the output of the one below."""

    cells: list[RecurrentCell]
    counts: list[int]

    def project(self, context: Lowering, x: Blob) -> Blob:
        """See `RecurrentCell`."""
        return self.cells[0].project(context, x)

    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `RecurrentCell`."""
        outputs: list[Blob] = []
        for index, (cell, count) in enumerate(zip(self.cells, self.counts, strict=True)):
            projected = x if not index else cell.project(context, x)
            own = states[len(outputs) : len(outputs) + count]
            x, new = cell.step(context, projected, own)
            outputs += new
        return x, outputs


def _gated(
    context: Lowering, node: Node, kind: type[Gates], order: Sequence[int], names: Sequence[str]
) -> Gates:
    """The weights of a cell, with gates in ONNX's order; an LSTM of Keras has i, f, c, o."""
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
    functions = [_function(context, attrs.get(name), node.name) for name in names]
    return kind(w, r, wb, rb, functions, behind=behind)


def _function(context: Lowering, option: Attribute, layer: str) -> Function:
    """An activation, as Core ML's parameters if its recurrent layers support it."""
    name, options = described(option, context.graph.version)
    if name in ("tanh", "sigmoid") and not options:
        return Activation({name: {}})
    if name == "hard_sigmoid" and context.graph.version < 3:
        return Activation({"sigmoidHard": {"alpha": 0.2, "beta": 0.5}})
    return activation_of(context, option, layer)


_ONE_BY_ONE = Windows((1, 1), (1, 1), [(0, 0), (0, 0)], same="BOTTOM_RIGHT_HEAVY")


@dataclass
class Convolutional:
    """An LSTM over maps [batch, filters, *spatial]; gates i, f, c, o.

    Attributes:
        kernel: [4 * filters, channels, *kernel] of the inputs.
        recurrent: [4 * filters, filters, *kernel] of the states.
        bias: [4 * filters], or None.
        how: strides, dilations and padding of the inputs.
        functions: of the gates, and of the values.
        first: whether channels come before the spatial axes.
    """

    kernel: Matrix
    recurrent: Matrix
    bias: Matrix | None
    how: Windows
    functions: list[Callable[[Lowering, Blob], Blob]]
    first: bool
    shared: Blob | None = None

    def project(self, context: Lowering, x: Blob) -> Blob:
        """See `RecurrentCell`; x is [time, batch, *spatial, channels]."""
        time, batch, *rest = x.known
        if time is None or None in rest:
            known(x)  # only the batch may vary
        flat = context.reshape(x, (product((time, batch)), *rest), layout=SOURCE)
        if not self.first:
            flat = channels_first(context, flat)
        how = self.how
        spans = spans_of(self.kernel.shape[2:], how.dilations)
        pairs = how.pairs or same_pairs(flat, spans, how.strides)
        windows = replace(how, pairs=pairs)
        output = convolved(context, flat, self.kernel, windows, bias=self.bias)
        return context.reshape(output, (time, batch, *output.known[1:]), layout=SOURCE)

    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `RecurrentCell`."""
        h, c = states
        kernel = self.recurrent if self.recurrent.ndim == 4 else self.recurrent[:, :, None]
        if self.shared is None:
            self.shared = context.constant(kernel, layout=SOURCE)
        flat = self.recurrent.ndim == 3
        h = context.expand(h, 2) if flat else h
        result = convolved_by(context, h, self.shared, _ONE_BY_ONE)
        result = context.squeeze(result, 2) if flat else result
        gates, values = self.functions
        i, f, new, o = context.split(context.add(x, result), 4, 1)
        update = context.multiply(gates(context, i), values(context, new))
        cell = context.add(context.multiply(gates(context, f), c), update)
        output = context.multiply(gates(context, o), values(context, cell))
        return output, [output, cell]


def _convolutional(context: Lowering, node: Node) -> RecurrentCell:
    attrs = node.attrs
    filters = int(attrs["filters"])
    rank = node.weight("kernel").ndim - 2
    kernel_size = sizes_of(attrs["kernel_size"], rank, "kernel_size")
    strides = sizes_of(attrs.get("strides", 1), rank, "strides")
    dilations = sizes_of(attrs.get("dilation_rate", 1), rank, "dilation_rate")
    valid = choice(node, "padding", ("valid", "same"), "valid") == "valid"
    order = (rank + 1, rank, *range(rank))
    kernel = weight(node, "kernel", *kernel_size, None, 4 * filters).transpose(order)
    recurrent = weight(node, "recurrent_kernel", *kernel_size, filters, 4 * filters)
    bias = weight(node, "bias", 4 * filters) if attrs.get("use_bias", True) else None
    windows = Windows(strides, dilations, [(0, 0)] * rank if valid else [])
    functions = [activation_of(context, attrs.get(name), node.name) for name in _ACTIVATIONS]
    first = attrs.get("data_format") == "channels_first"
    return Convolutional(kernel, recurrent.transpose(order), bias, windows, functions, first)


def _stacked(context: Lowering, node: Node) -> RecurrentCell:
    node.attrs["cells"]
    parts = list(node.parts.values())
    return Stacked([cell_of(context, part) for part in parts], [len(sizes(part)) for part in parts])


_CELLS: dict[str, Callable[[Lowering, Node], RecurrentCell]] = {
    "SimpleRNNCell": partial(_gated, kind=Simple, order=(0,), names=("activation",)),
    "GRUCell": partial(_gated, kind=GRU, order=(0, 1, 2), names=_ACTIVATIONS),
    "LSTMCell": partial(_gated, kind=LSTM, order=(0, 3, 1, 2), names=(*_ACTIVATIONS, "activation")),
    "StackedRNNCells": _stacked,
    "ConvLSTMCell": _convolutional,
}


def first_states(node: Node, batch: int, steps: Blob) -> list[tuple[int, ...]]:
    """The shapes of a cell's states, given its projection: [time, batch, ...]."""
    if node.op == "ConvLSTMCell":
        gates, *spatial = (extent(steps, axis) for axis in range(2, steps.rank))
        return [(batch, gates // 4, *spatial)] * 2
    return [(batch, size) for size in sizes(node)]


def cell_of(context: Lowering, node: Node) -> RecurrentCell:
    """The cell of a node.

    Raises:
        ConversionError: it is not one of Keras's cells.
    """
    if node.op not in _CELLS:
        raise ConversionError(f"the cell {node.op}: {', '.join(_CELLS)} can be converted")
    return _CELLS[node.op](context, node)


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
