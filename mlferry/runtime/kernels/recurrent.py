"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out.

Initial states may come as further inputs, [1, Batch, units, 1, 1] each; without them they are
zero. `reverseInput` walks the sequence from its end; the outputs of a sequence come in the
order of the walk, except those of the backward half of a bidirectional layer, which are in the
order of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlferry.runtime.kernels.elementwise import activate, hard_sigmoid, scaled_tanh
from mlferry.runtime.kernels.registry import Array, kernel
from mlferry.spec.params import Params

_CLIP = np.float32(50)

States = tuple[Array, ...]
Step = Callable[[Array, States], States]


def _clip(x: Array) -> Array:
    return np.clip(x, -_CLIP, _CLIP)


# Recurrent layers know these two with these constants only, so writers leave them out.
_FIXED: dict[str, Callable[[Array], Array]] = {
    "scaledTanh": lambda x: scaled_tanh(x, 1.7159, 2 / 3),
    "sigmoidHard": lambda x: hard_sigmoid(x, 0.2, 0.5),
}


def _activate(a: Params, x: Array) -> Array:
    """An activation of a recurrent layer."""
    kind = a.which("NonlinearityType") or "linear"
    message = getattr(a, kind)
    if kind in _FIXED and not (message.alpha or message.beta):
        return _FIXED[kind](x)
    if kind == "linear" and not (message.alpha or message.beta):
        return x
    return activate(a, x)


def _steps(x: Array, reverse: bool = False) -> Array:
    """[Seq, Batch, C] in the order of the walk."""
    flat = x.reshape(*x.shape[:2], -1)
    return flat[::-1] if reverse else flat


def _initial(states: Sequence[Array], count: int, batch: int, units: int) -> States:
    if not states:
        return (np.zeros((batch, units), np.float32),) * count
    return tuple(state.reshape(-1, units) + np.zeros((batch, 1), np.float32) for state in states)


def _walk(step: Step, x: Array, states: States) -> tuple[Array, States]:
    """Every output, which is the first state, and the last states."""
    outputs = []
    for entry in x:
        states = step(entry, states)
        outputs.append(states[0])
    return np.stack(outputs), states


def _blobs(y: Array, states: States, sequence: bool) -> tuple[Array, ...]:
    """The output, whole or its last step, and the states, in five axes."""
    shown = y if sequence else y[-1:]
    return (shown[..., None, None], *(state[None, :, :, None, None] for state in states))


@kernel("simpleRecurrent")
def simple_recurrent(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """y = f(W x + R y' + b)."""
    units = p.outputVectorSize
    matrix = p.weight("weightMatrix", (units, p.inputVectorSize))
    recursion = p.weight("recursionMatrix", (units, units))
    bias = p.weight("biasVector", (units,)) if p.hasBiasVector else np.float32(0)

    def step(entry: Array, state: States) -> States:
        return (_activate(p.activation, _clip(entry @ matrix.T + state[0] @ recursion.T + bias)),)

    y, last = _walk(step, _steps(x, p.reverseInput), _initial(states, 1, x.shape[1], units))
    return _blobs(y, last, p.sequenceOutput)


@kernel("gru")
def gru(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """The reset gate is applied to the state before the recursion matrix.

    z = f(Wz x + Rz y' + bz), r = f(Wr x + Rr y' + br), o = g(Wo x + Ro (r y') + bo),
    y = (1 - z) o + z y'.
    """
    units = p.outputVectorSize
    gates = ("update", "reset", "output")
    w_z, w_r, w_o = (
        p.weight(f"{gate}GateWeightMatrix", (units, p.inputVectorSize)).T for gate in gates
    )
    r_z, r_r, r_o = (p.weight(f"{gate}GateRecursionMatrix", (units, units)).T for gate in gates)
    b_z, b_r, b_o = (
        p.weight(f"{gate}GateBiasVector", (units,)) if p.hasBiasVectors else np.float32(0)
        for gate in gates
    )
    inner, outer = p.activations

    def step(entry: Array, state: States) -> States:
        (before,) = state
        z = _activate(inner, _clip(entry @ w_z + before @ r_z + b_z))
        r = _activate(inner, _clip(entry @ w_r + before @ r_r + b_r))
        o = _activate(outer, _clip(entry @ w_o + (before * r) @ r_o + b_o))
        return ((1 - z) * o + z * before,)

    y, last = _walk(step, _steps(x, p.reverseInput), _initial(states, 1, x.shape[1], units))
    return _blobs(y, last, p.sequenceOutput)


_GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")


def _lstm_step(p: Params, weights: Params, activations: Sequence[Params]) -> Step:
    """One step of an LSTM; the states are the output and the cell.

    i = f(Wi x + Ri y' + pi c' + bi), f likewise, z = g(Wz x + Rz y' + bz), c = c' f + i z,
    clipped, o = f(Wo x + Ro y' + po c + bo), y = h(c) o. With coupled gates 1 - i is in the
    place of f.
    """
    units, options = p.outputVectorSize, p.params
    coupled = options.coupledInputAndForgetGate
    gates = tuple(gate for gate in _GATES if not (coupled and gate == "forgetGate"))
    matrix = {g: weights.weight(f"{g}WeightMatrix", (units, p.inputVectorSize)).T for g in gates}
    recursion = {g: weights.weight(f"{g}RecursionMatrix", (units, units)).T for g in gates}
    bias = {
        g: weights.weight(f"{g}BiasVector", (units,)) if options.hasBiasVectors else np.float32(0)
        for g in gates
    }
    if options.forgetBias and not options.hasBiasVectors:
        bias["forgetGate"] = np.float32(1)
    peepholes = {
        g: weights.weight(f"{g}PeepholeVector", (units,))
        if options.hasPeepholeVectors
        else np.float32(0)
        for g in gates
        if g != "blockInput"
    }
    f, g, h = activations
    limit = np.float32(options.cellClipThreshold)

    def step(entry: Array, state: States) -> States:
        before, cell = state

        def gate(name: str, seen: Array | float, activation: Params) -> Array:
            total = entry @ matrix[name] + before @ recursion[name] + bias[name] + seen
            return _activate(activation, _clip(total))

        i = gate("inputGate", peepholes["inputGate"] * cell, f)
        forget = 1 - i if coupled else gate("forgetGate", peepholes["forgetGate"] * cell, f)
        z = gate("blockInput", 0.0, g)
        cell = np.clip(cell * forget + i * z, -limit, limit)
        o = gate("outputGate", peepholes["outputGate"] * cell, f)
        return _activate(h, cell) * o, cell

    return step


@kernel("uniDirectionalLSTM")
def uni_directional_lstm(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """Output, last output and last cell."""
    y, last = _walk(
        _lstm_step(p, p.weightParams, p.activations),
        _steps(x, p.reverseInput),
        _initial(states, 2, x.shape[1], p.outputVectorSize),
    )
    return _blobs(y, last, p.params.sequenceOutput)


@kernel("biDirectionalLSTM")
def bi_directional_lstm(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """Output, last output and cell forward, last output and cell backward.

    The output has the forward half first.
    """
    forward, backward = p.weightParams
    batch, units = x.shape[1], p.outputVectorSize
    ahead, last = _walk(
        _lstm_step(p, forward, p.activationsForwardLSTM),
        _steps(x),
        _initial(states[:2], 2, batch, units),
    )
    back, first = _walk(
        _lstm_step(p, backward, p.activationsBackwardLSTM or p.activationsForwardLSTM),
        _steps(x, reverse=True),
        _initial(states[2:], 2, batch, units),
    )
    if p.params.sequenceOutput:
        y = np.concatenate([ahead, back[::-1]], axis=-1)
    else:
        y = np.concatenate([ahead[-1:], back[-1:]], axis=-1)
    return _blobs(y, (*last, *first), True)
