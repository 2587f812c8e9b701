"""Recurrent ops as ONNX's own nodes, whose gates are in another order.

An lstm with limits on its cells is a `Scan` over the steps, because the node limits the gates
instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.numerics.gates import FIXED
from mlferry.numerics.shapes import Array
from mlferry.onnx_graph.emitter import Emitter
from mlferry.onnx_graph.graph import Port
from mlferry.programs.exports import Call, body_of, export

# The weights of a direction: its matrix, its recursion, and the biases of input and recursion.
_Direction = tuple[Array, Array, Array | None, Array | None]
_BEFORE = int(np.iinfo(np.int64).min)
# ONNX's name, and the constants of the function.
_ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "linear": ("Affine", (1.0, 0.0)),
    "relu": ("Relu", ()),
    "scaled_tanh": ("ScaledTanh", FIXED["scaledTanh"]),
    "sigmoid": ("Sigmoid", ()),
    "hard_sigmoid": ("HardSigmoid", FIXED["sigmoidHard"]),
    "sigmoid_hard": ("HardSigmoid", FIXED["sigmoidHard"]),
    "tanh": ("Tanh", ()),
}
# The places of a node's gates in the program's matrices.
_LSTM = (0, 2, 1, 3)  # input, output, forget, cell
_GRU = (2, 0, 1)  # update, reset, hidden
_RNN = (0,)


def _attributes(names: Sequence[str], directions: int) -> dict[str, Any]:
    entries = [_ACTIVATIONS[name] for name in names] * directions
    alphas = [constants[0] for _, constants in entries if constants]
    betas = [constants[1] for _, constants in entries if constants]
    return {
        "activations": [name for name, _ in entries],
        "activation_alpha": alphas or None,
        "activation_beta": betas or None,
    }


def _ordered(array: Array, order: Sequence[int]) -> Array:
    parts = np.split(np.asarray(array, np.float32), len(order), axis=0)
    return np.concatenate([parts[place] for place in order], axis=0)


def _weights(
    emitter: Emitter, directions: Sequence[_Direction], order: Sequence[int]
) -> tuple[str, str, str]:
    """Matrices, recursions and biases, [directions, gates * units, ...].

    A direction has its matrix, its recursion, and the biases of input and recursion.
    """
    count = len(directions[0][1])
    zeros = np.zeros(count, np.float32)
    matrices = [_ordered(matrix, order) for matrix, _, _, _ in directions]
    recursions = [_ordered(recursion, order) for _, recursion, _, _ in directions]
    shifts = [
        np.concatenate([_ordered(zeros if b is None else b, order) for b in biases])
        for _, _, *biases in directions
    ]
    first, second, third = (
        emitter.constant(np.stack(rows)) for rows in (matrices, recursions, shifts)
    )
    return first, second, third


def _states(emitter: Emitter, x: str, state: str, directions: int, units: int) -> str:
    """[directions, batch, units]"""
    batch = emitter.extent(x, 1)
    if emitter.extent(state, 0) == 1 and batch != 1:
        width = directions * units
        state = emitter.node("Expand", state, emitter.vector([batch, width]))
        emitter.shapes[state] = (emitter.shape(x)[1], width)
    if directions == 1:
        return emitter.expand(state, [0])
    split = emitter.reshape(state, [batch, directions, units])
    return emitter.transpose(split, [1, 0, 2])


def _results(
    emitter: Emitter, x: str, outputs: Sequence[str], units: int, direction: str, *, sequence: bool
) -> tuple[str, ...]:
    """The steps in the order of computation, and the last states, [batch, ...]."""
    y, *last = outputs
    steps, batch = emitter.extents(x)[:2]
    known, count = emitter.shape(x)[:2], 2 if direction == "bidirectional" else 1
    emitter.shapes[y] = (known[0], count, known[1], units)
    ends = []
    for state in last:
        emitter.shapes[state] = (count, known[1], units)
        by_batch = emitter.transpose(state, [1, 0, 2])
        ends.append(emitter.reshape(by_batch, [batch, count * units]))
    if not sequence:
        return emitter.expand(ends[0], [0]), *ends
    if direction == "reverse":
        y = emitter.sliced(y, 0, -1, _BEFORE, -1)
    y = emitter.transpose(y, [0, 2, 1, 3])
    return emitter.reshape(y, [steps, batch, count * units]), *ends


@export("rnn")
def rnn(
    emitter: Emitter,
    call: Call,
    x: str,
    initial_h: str,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    direction: str,
    output_sequence: bool,
    activation: str,
) -> tuple[str, ...]:
    units = weight_hh.shape[1]
    weights = _weights(emitter, [(weight_ih, weight_hh, bias, None)], _RNN)
    outputs = emitter.nodes(
        "RNN",
        [x, *weights, "", _states(emitter, x, initial_h, 1, units)],
        2,
        hidden_size=units,
        direction=direction,
        **_attributes([activation], 1),
    )
    return _results(emitter, x, outputs, units, direction, sequence=output_sequence)


@export("gru")
def gru(
    emitter: Emitter,
    call: Call,
    x: str,
    initial_h: str,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    direction: str,
    output_sequence: bool,
    recurrent_activation: str,
    activation: str,
    reset_after: bool = False,
    input_bias: Array | None = None,
) -> tuple[str, ...]:
    """The reset gate applies before the product or, with `reset_after`, after it."""
    units = weight_hh.shape[1]
    weights = _weights(emitter, [(weight_ih, weight_hh, input_bias, bias)], _GRU)
    outputs = emitter.nodes(
        "GRU",
        [x, *weights, "", _states(emitter, x, initial_h, 1, units)],
        2,
        hidden_size=units,
        direction=direction,
        linear_before_reset=int(reset_after),
        **_attributes([recurrent_activation, activation], 1),
    )
    return _results(emitter, x, outputs, units, direction, sequence=output_sequence)


@export("lstm")
def lstm(
    emitter: Emitter,
    call: Call,
    x: str,
    initial_h: str,
    initial_c: str,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    peephole: Array | None,
    weight_ih_back: Array | None,
    weight_hh_back: Array | None,
    bias_back: Array | None,
    peephole_back: Array | None,
    direction: str,
    output_sequence: bool,
    recurrent_activation: str,
    cell_activation: str,
    activation: str,
    clip: float | None,
) -> tuple[str, ...]:
    units = weight_hh.shape[1]
    directions: list[_Direction] = [(weight_ih, weight_hh, bias, None)]
    peeps = [peephole]
    if direction == "bidirectional":
        assert weight_ih_back is not None
        assert weight_hh_back is not None
        directions.append((weight_ih_back, weight_hh_back, bias_back, None))
        peeps.append(peephole_back)
    count = len(directions)
    if clip is not None:
        names = (recurrent_activation, cell_activation, activation)
        parts = [
            _Cells(weights[:3], peep, names, clip, backwards)
            for weights, peep, backwards in zip(
                directions, peeps, (direction == "reverse", True), strict=False
            )
        ]
        return _scanned(emitter, x, (initial_h, initial_c), parts, sequence=output_sequence)
    weights = _weights(emitter, directions, _LSTM)
    states = [_states(emitter, x, state, count, units) for state in (initial_h, initial_c)]
    optional = []
    if any(peep is not None for peep in peeps):
        none = np.zeros(3 * units, np.float32)
        rows = [_ordered(none if peep is None else peep, (0, 2, 1)) for peep in peeps]
        optional = [emitter.constant(np.stack(rows))]
    outputs = emitter.nodes(
        "LSTM",
        [x, *weights, "", *states, *optional],
        3,
        hidden_size=units,
        direction=direction,
        **_attributes([recurrent_activation, cell_activation, activation], count),
    )
    return _results(emitter, x, outputs, units, direction, sequence=output_sequence)


# ---- cells within limits -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """One direction of an lstm with limits on its cells."""

    weights: tuple[Array, Array, Array | None]
    peephole: Array | None
    activations: tuple[str, str, str]
    clip: float
    backwards: bool


def _applied(emitter: Emitter, name: str, x: str) -> str:
    op, constants = _ACTIVATIONS[name]
    if op == "Affine":
        return x
    if op == "ScaledTanh":
        inner = emitter.node("Tanh", emitter.node("Mul", x, emitter.number(constants[1])))
        return emitter.node("Mul", inner, emitter.number(constants[0]))
    named: dict[str, Any] = dict(zip(("alpha", "beta"), constants, strict=False))
    return emitter.node(op, x, **named)


def _scanned(
    emitter: Emitter, x: str, states: tuple[str, str], parts: Sequence[_Cells], *, sequence: bool
) -> tuple[str, ...]:
    units = parts[0].weights[1].shape[1]
    scans = []
    for place, part in enumerate(parts):
        own = [emitter.sliced(s, 1, place * units, (place + 1) * units) for s in states]
        scans.append(_scan(emitter, x, own, part, flipped=place > 0))
    steps, hidden, cells = (list(values) for values in zip(*scans, strict=True))
    for state in (*hidden, *cells):
        emitter.shapes[state] = (emitter.shape(x)[1], units)
    last = emitter.joined(hidden, -1)
    emitter.shapes[last] = (emitter.shape(x)[1], units * len(parts))
    shown = emitter.joined(steps, -1) if sequence else emitter.expand(last, [0])
    return shown, last, emitter.joined(cells, -1)


def _scan(
    emitter: Emitter, x: str, states: Sequence[str], part: _Cells, *, flipped: bool
) -> tuple[str, ...]:
    """The steps, in the order of x if they are `flipped`, and the last states."""
    matrix, recurrent, bias = (None if w is None else np.asarray(w) for w in part.weights)
    assert matrix is not None
    assert recurrent is not None
    entries = emitter.node("MatMul", x, emitter.constant(matrix.T.astype(np.float32)))
    if bias is not None:
        entries = emitter.node("Add", entries, emitter.constant(bias.astype(np.float32)))
    transposed = emitter.constant(recurrent.T.astype(np.float32))
    names = [emitter.fresh(f"{emitter.layer}/{part_name}") for part_name in ("h", "c", "entry")]
    with emitter.inside() as nodes:
        h, c = _cell(emitter, names, transposed, part)
        ports = [Port(name, "float32") for name in names]
        body = body_of(emitter, nodes, [h, c, h], ["float32"] * 3, ports)
    hidden, cells, steps = emitter.nodes(
        "Scan",
        [*states, entries],
        3,
        body=body,
        num_scan_inputs=1,
        scan_input_directions=[int(part.backwards)],
        scan_output_directions=[int(flipped)],
    )
    return steps, hidden, cells


def _cell(emitter: Emitter, names: Sequence[str], recurrent: str, part: _Cells) -> tuple[str, str]:
    """One step: the next state and the next cell."""
    h, c, entry = names
    gate, cell, last = part.activations
    sums = emitter.node("Add", entry, emitter.node("MatMul", h, recurrent))
    i, f, o, z = emitter.nodes("Split", [sums], 4, axis=-1, num_outputs=4)
    if part.peephole is not None:
        to_input, to_forget, to_output = (
            emitter.constant(row) for row in np.split(part.peephole.astype(np.float32), 3)
        )
        i = emitter.node("Add", i, emitter.node("Mul", to_input, c))
        f = emitter.node("Add", f, emitter.node("Mul", to_forget, c))
    carried = emitter.node("Mul", _applied(emitter, gate, f), c)
    new = emitter.node("Mul", _applied(emitter, gate, i), _applied(emitter, cell, z))
    limits = emitter.number(-part.clip), emitter.number(part.clip)
    after = emitter.node("Clip", emitter.node("Add", carried, new), *limits)
    if part.peephole is not None:
        o = emitter.node("Add", o, emitter.node("Mul", to_output, after))
    shown = emitter.node("Mul", _applied(emitter, gate, o), _applied(emitter, last, after))
    return shown, after
