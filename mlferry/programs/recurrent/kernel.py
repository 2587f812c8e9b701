"""Recurrent ops, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlferry.compiled import is_active
from mlferry.numerics import functions, half
from mlferry.numerics.gates import FIXED
from mlferry.programs.kernels import Array, Call, kernel

if TYPE_CHECKING:
    from mlferry.compiled.lstm import PackedLSTM

Function = Callable[[Array], Array]

_ACTIVATIONS: dict[str, Function] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "scaled_tanh": lambda x: functions.scaled_tanh(x, *FIXED["scaledTanh"]),
    "sigmoid": functions.sigmoid,
    "hard_sigmoid": lambda x: functions.hard_sigmoid(x, *FIXED["sigmoidHard"]),
    "sigmoid_hard": lambda x: functions.hard_sigmoid(x, *FIXED["sigmoidHard"]),
    "tanh": np.tanh,
}


def _entries(x: Array, weights: Array, bias: Array | None) -> Array:
    """The contribution of the inputs to the gates, for all steps at once."""
    y = np.matmul(x, weights.T)
    return y if bias is None else y + bias


def _results(steps: list[Array], sequence: bool) -> Array:
    """The steps in the order of computation: for "reverse", the last step of x comes first."""
    return np.stack(steps) if sequence else steps[-1][None]


@kernel("rnn")
def rnn(
    call: Call,
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    direction: str,
    output_sequence: bool,
    activation: str,
) -> tuple[Array, Array]:
    backwards, apply = direction == "reverse", _ACTIVATIONS[activation]
    entries, h, steps = _entries(x, weight_ih, bias), initial_h, []
    for entry in entries[::-1] if backwards else entries:
        h = apply(entry + np.matmul(h, weight_hh.T))
        steps.append(h)
    return _results(steps, output_sequence), h


@kernel("gru")
def gru(
    call: Call,
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None,
    direction: str,
    output_sequence: bool,
    recurrent_activation: str,
    activation: str,
    reset_after: bool = False,
    input_bias: Array | None = None,
) -> tuple[Array, Array]:
    """The reset gate applies before the product or, with `reset_after`, after it.

    Of two biases, `bias` is that of the recurrent product and `input_bias` that of the input.
    """
    units = weight_hh.shape[1]
    backwards = direction == "reverse"
    gate, apply = _ACTIVATIONS[recurrent_activation], _ACTIVATIONS[activation]
    own = np.zeros(3 * units, np.float32) if bias is None else bias
    entries = _entries(x, weight_ih, input_bias)
    h, steps = initial_h, []
    for entry in entries[::-1] if backwards else entries:
        r, _, z = np.split(entry + np.matmul(h, weight_hh.T) + own, 3, axis=-1)
        r, z = gate(r), gate(z)
        inner, product = entry[..., units : 2 * units], weight_hh[units : 2 * units].T
        shift = own[units : 2 * units]
        if reset_after:
            o = apply(inner + r * (np.matmul(h, product) + shift))
        else:
            o = apply(inner + np.matmul(r * h, product) + shift)
        h = (1 - z) * o + z * h
        steps.append(h)
    return _results(steps, output_sequence), h


@kernel("lstm")
def lstm(
    call: Call,
    x: Array,
    initial_h: Array,
    initial_c: Array,
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
) -> tuple[Array, Array, Array]:
    names = (recurrent_activation, cell_activation, activation)
    parts = [_Gates(weight_ih, weight_hh, bias, peephole)]
    if direction == "bidirectional":
        assert weight_ih_back is not None
        assert weight_hh_back is not None
        parts.append(_Gates(weight_ih_back, weight_hh_back, bias_back, peephole_back))
    backwards = [direction == "reverse", True][: len(parts)]
    before, cells = (
        np.stack(np.split(state, len(parts), axis=-1)) for state in (initial_h, initial_c)
    )
    limit = np.float32(np.inf if clip is None else clip)
    dtypes = {x.dtype, *(part.inputs.dtype for part in parts)}
    is_plain = dtypes == {np.dtype(np.float32)} and x.size > 0
    if is_active() and is_plain and _takes(call, parts, names):
        outputs, cells = _compiled(call, parts)(x, before, cells, limit, backwards)
    else:
        outputs, cells = _step_by_step(x, before, cells, parts, names, limit, backwards)
    # both directions have a step of x at the same place
    shown = outputs if output_sequence else outputs[-1:]
    return (
        np.concatenate([shown[:: -1 if d else 1, d] for d in range(len(parts))], axis=-1),
        np.concatenate(list(outputs[-1]), axis=-1),
        np.concatenate(list(cells), axis=-1),
    )


class _Gates(NamedTuple):
    """The weights of one direction of an LSTM: input, forget and output gate, and block input.

    Attributes:
        inputs: [4 * units, C].
        recursion: [4 * units, units].
        bias: [4 * units], or None.
        peephole: [3 * units], or None.
    """

    inputs: Array
    recursion: Array
    bias: Array | None
    peephole: Array | None


def packed_lstm(call: Call, constants: Mapping[str, Any]) -> Callable[[], PackedLSTM] | None:
    """What gives the weights of an operation to the compiled kernel; None if it does not take it.

    Args:
        call: the operation.
        constants: its arguments that are constants; weights of float16 are widened.
    """
    names = tuple(constants[f"{n}activation"] for n in ("recurrent_", "cell_", ""))
    fields = ("weight_ih", "weight_hh", "bias", "peephole")
    directions = ("", "_back")[: 1 + (constants["direction"] == "bidirectional")]
    parts = [_Gates(*(constants[name + end] for name in fields)) for end in directions]
    if not _takes(call, parts, names):
        return None
    return lambda: _compiled(call, [_widened(part) for part in parts])


def _widened(gates: _Gates) -> _Gates:
    """The same in float32."""
    values = {
        name: half.wide(value)
        for name, value in gates._asdict().items()
        if value is not None and value.dtype == np.float16
    }
    return gates._replace(**values)


def _takes(call: Call, parts: Sequence[_Gates], names: tuple[str, ...]) -> bool:
    """Whether it is what the compiled kernel computes, with weights that stay in memory."""
    constants = [
        name + end
        for end, part in zip(("", "_back"), parts, strict=False)
        for name, value in zip(("weight_ih", "weight_hh", "bias"), part, strict=False)
        if value is not None
    ]
    return (
        names == ("sigmoid", "tanh", "tanh")
        and call.stays.issuperset(constants)
        and all(part.peephole is None for part in parts)
    )


def _compiled(call: Call, parts: Sequence[_Gates]) -> PackedLSTM:
    from mlferry.compiled.lstm import PackedLSTM
    from mlferry.compiled.recurrent import GATES

    def packed() -> PackedLSTM:
        inputs, recursions = (
            np.stack([matrix.reshape(GATES, -1, matrix.shape[1]) for matrix in each])
            for each in ([part.inputs for part in parts], [part.recursion for part in parts])
        )
        biases = np.zeros(recursions.shape[:3], np.float32)
        for target, part in zip(biases, parts, strict=True):
            if part.bias is not None:
                target[:] = part.bias.reshape(target.shape)
        return PackedLSTM.of(inputs, recursions, biases)

    return call.once("gates", packed)


def _step_by_step(
    x: Array,
    before: Array,
    cells: Array,
    parts: Sequence[_Gates],
    names: tuple[str, ...],
    limit: np.float32,
    backwards: Sequence[bool],
) -> tuple[Array, Array]:
    """The outputs of all steps in the order of computation, and the last cells.

    Peepholes add the previous state, and for the output gate the new one, to the gates.

    Args:
        x: [Seq, Batch, C].
        before: the first states, [directions, Batch, units].
        cells: the first cells, likewise.
        parts: the weights of each direction.
        names: the functions of the gates, of the block input and of the cell.
        limit: of the magnitude of a cell.
        backwards: whether each direction walks from the end.

    Returns:
        [Seq, directions, Batch, units] and [directions, Batch, units].
    """
    applied = tuple(_ACTIVATIONS[name] for name in names)
    results = [
        _one_direction(x[::-1] if reverse else x, h, c, part, applied, limit)
        for h, c, part, reverse in zip(before, cells, parts, backwards, strict=True)
    ]
    steps, ends = zip(*results, strict=True)
    return np.stack(steps, axis=1), np.stack(ends)


def _one_direction(
    x: Array, h: Array, c: Array, part: _Gates, applied: tuple[Function, ...], limit: np.float32
) -> tuple[Array, Array]:
    """The outputs of all steps in the order of `x`, and the last cell."""
    gate, inner, last = applied
    entries = _entries(x, part.inputs, part.bias)
    zeros = np.zeros(3 * h.shape[-1], np.float32)
    to_input, to_forget, to_output = np.split(zeros if part.peephole is None else part.peephole, 3)
    steps = []
    for entry in entries:
        i, f, o, z = np.split(entry + np.matmul(h, part.recursion.T), 4, axis=-1)
        c = gate(f + to_forget * c) * c + gate(i + to_input * c) * inner(z)
        c = np.clip(c, -limit, limit)
        h = gate(o + to_output * c) * last(c)
        steps.append(h)
    return np.stack(steps), c
