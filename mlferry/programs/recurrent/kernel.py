"""Recurrent ops, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.numerics import functions
from mlferry.numerics.gates import FIXED
from mlferry.programs.kernels import Array, Call, kernel

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
    applied = tuple(_ACTIVATIONS[name] for name in names)
    first = (weight_ih, weight_hh, bias, peephole)
    if direction != "bidirectional":
        steps, h, c = _lstm(x, initial_h, initial_c, first, applied, clip, direction == "reverse")
        return _results(steps, output_sequence), h, c
    assert weight_ih_back is not None
    assert weight_hh_back is not None
    second = (weight_ih_back, weight_hh_back, bias_back, peephole_back)
    units = weight_hh.shape[1]
    states = [
        (initial_h[:, :units], initial_c[:, :units]),
        (initial_h[:, units:], initial_c[:, units:]),
    ]
    results = [
        _lstm(x, *state, weights, applied, clip, backwards)
        for state, weights, backwards in zip(states, (first, second), (False, True), strict=True)
    ]
    # both directions have a step of x at the same place
    there, back = results[0][0], results[1][0]
    shown = [
        _results(there, output_sequence),
        _results(back[::-1] if output_sequence else back, output_sequence),
    ]
    return (
        np.concatenate(shown, -1),
        np.concatenate([h for _, h, _ in results], -1),
        np.concatenate([c for _, _, c in results], -1),
    )


Weights = tuple[Array, Array, "Array | None", "Array | None"]


def _lstm(
    x: Array,
    h: Array,
    c: Array,
    weights: Weights,
    applied: tuple[Function, ...],
    clip: float | None,
    backwards: bool,
) -> tuple[list[Array], Array, Array]:
    """The outputs of all steps in the order of computation, and the last states.

    Peepholes add the previous state, and for the output gate the new one, to the gates.
    """
    gate, cell, last = applied
    matrix, recurrent, bias, peephole = weights
    entries = _entries(x, matrix, bias)
    zeros = np.zeros(3 * recurrent.shape[1], np.float32)
    to_input, to_forget, to_output = np.split(zeros if peephole is None else peephole, 3)
    steps = []
    for entry in entries[::-1] if backwards else entries:
        i, f, o, z = np.split(entry + np.matmul(h, recurrent.T), 4, axis=-1)
        c = gate(f + to_forget * c) * c + gate(i + to_input * c) * cell(z)
        if clip is not None:
            c = np.clip(c, -np.float32(clip), np.float32(clip))
        h = gate(o + to_output * c) * last(c)
        steps.append(h)
    return steps, h, c
