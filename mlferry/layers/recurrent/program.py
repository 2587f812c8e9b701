"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.numerics.gates import FIXED, fields_of
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Array, Value
from mlferry.refusals import refuse

_ACTIVATIONS = {
    "linear": "linear",
    "ReLU": "relu",
    "scaledTanh": "scaled_tanh",
    "sigmoid": "sigmoid",
    "sigmoidHard": "hard_sigmoid",
    "tanh": "tanh",
}
_LIMITS = "activations with constants of their own"
_USUAL = {**FIXED, "linear": (1, 0)}
_LARGEST = float(np.finfo(np.float16).max)  # what float16 cannot reach clips nothing
_MIRRORED = ("sigmoid", "hard_sigmoid")  # 1 - f(x) is f(-x)


def _activation(activation: Params) -> str:
    """The name of an activation, which has the usual constants."""
    kind = activation.which("NonlinearityType") or "linear"
    message = getattr(activation, kind)
    constants = tuple(getattr(message, name, 0) for name in ("alpha", "beta"))
    usual = _USUAL.get(kind, (0, 0))
    if kind not in _ACTIVATIONS or (any(constants) and not np.allclose(constants, usual)):
        raise refuse(f"its activation {kind} has constants of its own")
    return _ACTIVATIONS[kind]


def _rows(builder: ProgramBuilder, x: Value) -> Value:
    """[Seq, Batch, C]."""
    return builder.squeeze(builder.as_float(x), [3, 4])


def _first(builder: ProgramBuilder, rows: Value, states: Sequence[Value], units: int) -> Value:
    """First states [Batch, units], side by side; zeros if none are given."""
    if states:
        flat = [builder.reshape(builder.as_float(x), [-1, units]) for x in states]
        return builder.joined(flat, 1)
    size = builder.vector([builder.extent(rows, 1), units])
    return builder.op("fill", shape=size, value=np.float32(0))


def _blobs(builder: ProgramBuilder, y: Value, states: Sequence[Value]) -> tuple[Value, ...]:
    """The output and the states in five axes."""
    return (builder.expand(y, [-2, -1]), *(builder.expand(state, [0, -2, -1]) for state in states))


def _joined(part: Params, names: Sequence[str], shape: tuple[int, ...]) -> Array:
    return np.concatenate([part.decoded(name, shape) for name in names])


def _direction(params: Params) -> str:
    return "reverse" if params.reverseInput else "forward"


@as_program("simpleRecurrent", five_axes=True, limits=_LIMITS)
def simple_recurrent(
    builder: ProgramBuilder, params: Params, x: Value, *states: Value
) -> tuple[Value, ...]:
    """y = f(W x + R y' + b)."""
    rows, units = _rows(builder, x), params.outputVectorSize
    y, last = builder.ops(
        "rnn",
        x=rows,
        initial_h=_first(builder, rows, states, units),
        weight_ih=params.decoded("weightMatrix", (units, params.inputVectorSize)),
        weight_hh=params.decoded("recursionMatrix", (units, units)),
        bias=params.decoded("biasVector", (units,)) if params.hasBiasVector else None,
        direction=_direction(params),
        output_sequence=params.sequenceOutput,
        activation=_activation(params.activation),
    )
    return _blobs(builder, y, [last])


_GRU = ("resetGate", "outputGate", "updateGate")  # in the order of the op


@as_program("gru", five_axes=True, limits=_LIMITS)
def gru(builder: ProgramBuilder, params: Params, x: Value, *states: Value) -> tuple[Value, ...]:
    """The reset gate is applied to the state before the recursion matrix, in the op as well."""
    rows, units = _rows(builder, x), params.outputVectorSize
    inner, outer = (_activation(a) for a in params.activations)
    matrices, recursions, biases = fields_of(_GRU)
    y, last = builder.ops(
        "gru",
        x=rows,
        initial_h=_first(builder, rows, states, units),
        weight_ih=_joined(params, matrices, (units, params.inputVectorSize)),
        weight_hh=_joined(params, recursions, (units, units)),
        bias=_joined(params, biases, (units,)) if params.hasBiasVectors else None,
        direction=_direction(params),
        output_sequence=params.sequenceOutput,
        recurrent_activation=inner,
        activation=outer,
    )
    return _blobs(builder, y, [last])


_LSTM = ("inputGate", "forgetGate", "outputGate", "blockInput")  # in the order of the op


def _lstm_weights(params: Params, part: Params, gate: str) -> dict[str, Any]:
    """The weights of a direction, as the op takes them."""
    options, units = params.params, params.outputVectorSize
    results: dict[str, Any] = {
        "weight_ih": _gates(params, part, "WeightMatrix", (units, params.inputVectorSize), gate),
        "weight_hh": _gates(params, part, "RecursionMatrix", (units, units), gate),
        "bias": None,
        "peephole": None,
    }
    if options.hasBiasVectors:
        results["bias"] = _gates(params, part, "BiasVector", (units,), gate)
    elif options.forgetBias and not options.coupledInputAndForgetGate:
        results["bias"] = np.zeros(4 * units, np.float32)
        results["bias"][units : 2 * units] = 1
    if options.hasPeepholeVectors:
        results["peephole"] = _gates(params, part, "PeepholeVector", (units,), gate, _LSTM[:3])
    return results


def _gates(
    params: Params,
    part: Params,
    what: str,
    shape: tuple[int, ...],
    gate: str,
    names: Sequence[str] = _LSTM,
) -> Array:
    """One array of all gates; with coupled gates 1 - i is in the place of f."""
    if not params.params.coupledInputAndForgetGate:
        return _joined(part, [f"{name}{what}" for name in names], shape)
    if gate not in _MIRRORED:
        raise refuse(f"coupled gates by {gate}: 1 - f(x) is no f(-x)")
    first = part.decoded(f"inputGate{what}", shape)
    others = [part.decoded(f"{name}{what}", shape) for name in names[2:]]
    return np.concatenate([first, -first, *others])


def _lstm_options(params: Params, activations: Sequence[Params]) -> dict[str, Any]:
    names = ("recurrent_activation", "cell_activation", "activation")
    limit = params.params.cellClipThreshold
    return {
        **dict(zip(names, map(_activation, activations), strict=True)),
        "output_sequence": params.params.sequenceOutput,
        "clip": np.float32(limit) if limit <= _LARGEST else None,
    }


@as_program("uniDirectionalLSTM", five_axes=True, limits=_LIMITS)
def uni_directional_lstm(
    builder: ProgramBuilder, params: Params, x: Value, *states: Value
) -> tuple[Value, ...]:
    """Output, last output and last cell."""
    y, h, c = _one_way(
        builder,
        params,
        _rows(builder, x),
        params.weightParams,
        params.activations,
        states,
        _direction(params),
    )
    return _blobs(builder, y, [h, c])


def _one_way(
    builder: ProgramBuilder,
    params: Params,
    rows: Value,
    part: Params,
    activations: Sequence[Params],
    states: Sequence[Value],
    direction: str,
) -> tuple[Value, ...]:
    units = params.outputVectorSize
    return builder.ops(
        "lstm",
        x=rows,
        initial_h=_first(builder, rows, states[:1], units),
        initial_c=_first(builder, rows, states[1:2], units),
        direction=direction,
        **_lstm_weights(params, part, _activation(activations[0])),
        **_lstm_options(params, activations),
    )


@as_program("biDirectionalLSTM", five_axes=True, limits=_LIMITS)
def bi_directional_lstm(
    builder: ProgramBuilder, params: Params, x: Value, *states: Value
) -> tuple[Value, ...]:
    """Output, last output and cell forward, last output and cell backward.

    The output has the forward half first.
    """
    rows, units = _rows(builder, x), params.outputVectorSize
    ahead = params.activationsForwardLSTM
    behind = params.activationsBackwardLSTM or ahead
    forward, backward = params.weightParams
    if [a.message for a in ahead] != [a.message for a in behind]:
        y, h, c = _one_way(builder, params, rows, forward, ahead, states[:2], "forward")
        z, k, d = _one_way(builder, params, rows, backward, behind, states[2:], "reverse")
        if params.params.sequenceOutput:
            z = builder.op("reverse", x=z, axes=[0])
        return _blobs(builder, builder.joined([y, z], 2), [h, c, k, d])
    gate = _activation(ahead[0])
    there, back = (_lstm_weights(params, part, gate) for part in (forward, backward))
    width = units if states else 2 * units
    y, h, c = builder.ops(
        "lstm",
        x=rows,
        initial_h=_first(builder, rows, states[::2], width),
        initial_c=_first(builder, rows, states[1::2], width),
        direction="bidirectional",
        **there,
        **{f"{name}_back": value for name, value in back.items()},
        **_lstm_options(params, ahead),
    )
    ends = [
        builder.sliced(state, 1, first, first + units) for first in (0, units) for state in (h, c)
    ]
    return _blobs(builder, y, ends)
