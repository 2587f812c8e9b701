"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out.

Initial states may come as further inputs, [1, Batch, units, 1, 1] each; without them they are
zero. `reverseInput` walks the sequence from its end; the outputs of a sequence come in the
order of the walk, except those of the backward half of a bidirectional layer, which are in the
order of the input.

Inside, arrays have an axis of directions: states [directions, Batch, units]. What does not depend
on the states is computed for all steps at once, and the gates of a step lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlferry.runtime.kernels.elementwise import clipped, function_of, hard_sigmoid, scaled_tanh
from mlferry.runtime.kernels.registry import Array, kernel
from mlferry.spec.params import Params

_CLIP = np.float32(50)

States = tuple[Array, ...]
Step = Callable[[Array, States], States]
Function = Callable[[Array], Array]

# Recurrent layers know these with these constants only, so writers leave them out.
_FIXED: dict[str, Function] = {
    "scaledTanh": lambda x: scaled_tanh(x, 1.7159, 2 / 3),
    "sigmoidHard": lambda x: hard_sigmoid(x, 0.2, 0.5),
    "linear": lambda x: x,
}


def _function(a: Params) -> Function:
    """An activation of a recurrent layer."""
    kind = a.which("NonlinearityType") or "linear"
    message = getattr(a, kind)
    if kind in _FIXED and not (message.alpha or message.beta):
        return _FIXED[kind]
    return function_of(a)


def _bounded(total: Array) -> Array:
    """A sum of its own, clipped in place."""
    clipped(total, -_CLIP, _CLIP, out=total)
    return total


class Gates(NamedTuple):
    """The weights of gates that are computed together, in all directions.

    Attributes:
        matrix: [directions, C, gates * units].
        recursion: [directions, units, gates * units].
        bias: [directions, 1, gates * units], or 0.
    """

    matrix: Array
    recursion: Array
    bias: Array | np.float32

    def project(self, x: Array, reverse: Sequence[bool]) -> Array:
        """[Seq, directions, Batch, gates * units], each direction in the order of its walk."""
        length, batch = x.shape[:2]
        rows = x.reshape(length * batch, -1)
        made = (rows @ self.matrix + self.bias).reshape(len(reverse), length, batch, -1)
        return np.stack([y[::-1] if back else y for y, back in zip(made, reverse, strict=True)], 1)


def _gates(
    p: Params, parts: Sequence[Params], weights: Sequence[str], recursions: Sequence[str],
    biases: Sequence[str],
) -> Gates:  # fmt: skip
    """Gates side by side, read once; `biases` may be empty."""

    def joined(names: Sequence[str], shape: tuple[int, ...]) -> Array:
        return np.stack([
            np.concatenate([part.weight(name, shape).T for name in names], axis=-1)
            for part in parts
        ])  # fmt: skip

    def read() -> Gates:
        units = p.outputVectorSize
        bias = joined(biases, (units,))[:, None] if biases else np.float32(0)
        matrix = joined(weights, (units, p.inputVectorSize))
        return Gates(matrix, joined(recursions, (units, units)), bias)

    return parts[0].once(f"gates {'+'.join(weights)} of {len(parts)}", read)


def _initial(
    states: Sequence[Array], count: int, directions: int, shape: tuple[int, int]
) -> States:
    """The first states [directions, Batch, units]; the inputs are ordered by direction."""
    if not states:
        return (np.zeros((directions, *shape), np.float32),) * count
    return tuple(
        np.stack([
            np.broadcast_to(states[count * d + s].reshape(-1, shape[1]), shape)
            for d in range(directions)
        ])
        for s in range(count)
    )  # fmt: skip


def _walk(step: Step, entries: Array, states: States) -> tuple[Array, States]:
    """The outputs [Seq, directions, Batch, units], which are the first state; the last states."""
    outputs = []
    for entry in entries:
        states = step(entry, states)
        outputs.append(states[0])
    return np.stack(outputs), states


def _blobs(y: Array, states: States, sequence: bool) -> tuple[Array, ...]:
    """The output [Seq, Batch, units], whole or its last step, and the states, in five axes."""
    shown = y if sequence else y[-1:]
    apart = (state[d] for d in range(len(states[0])) for state in states)
    return (shown[..., None, None], *(state[None, :, :, None, None] for state in apart))


@kernel("simpleRecurrent")
def simple_recurrent(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """y = f(W x + R y' + b)."""
    bias = ["biasVector"] if p.hasBiasVector else []
    gates = _gates(p, [p], ["weightMatrix"], ["recursionMatrix"], bias)
    function = _function(p.activation)

    def step(entry: Array, state: States) -> States:
        return (function(_bounded(entry + np.matmul(state[0], gates.recursion))),)

    first = _initial(states, 1, 1, (x.shape[1], p.outputVectorSize))
    y, last = _walk(step, gates.project(x, [p.reverseInput]), first)
    return _blobs(y[:, 0], last, p.sequenceOutput)


@kernel("gru")
def gru(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """The reset gate is applied to the state before the recursion matrix.

    z = f(Wz x + Rz y' + bz), r = f(Wr x + Rr y' + br), o = g(Wo x + Ro (r y') + bo),
    y = (1 - z) o + z y'.
    """
    units = p.outputVectorSize

    def of(*names: str) -> Gates:
        weights, recursions, biases = (
            [f"{name}Gate{what}" for name in names]
            for what in ("WeightMatrix", "RecursionMatrix", "BiasVector")
        )
        return _gates(p, [p], weights, recursions, biases if p.hasBiasVectors else [])

    early, late = of("update", "reset"), of("output")
    inner, outer = (_function(a) for a in p.activations)

    def step(entry: Array, state: States) -> States:
        (before,) = state
        gates = inner(_bounded(entry[..., : 2 * units] + np.matmul(before, early.recursion)))
        z, r = gates[..., :units], gates[..., units:]
        o = outer(_bounded(entry[..., 2 * units :] + np.matmul(before * r, late.recursion)))
        return ((1 - z) * o + z * before,)

    reverse = [p.reverseInput]
    entries = np.concatenate([early.project(x, reverse), late.project(x, reverse)], axis=-1)
    y, last = _walk(step, entries, _initial(states, 1, 1, (x.shape[1], units)))
    return _blobs(y[:, 0], last, p.sequenceOutput)


def _lstm(
    p: Params, parts: Sequence[Params], activations: Sequence[Params], x: Array,
    states: Sequence[Array], reverse: Sequence[bool],
) -> tuple[Array, States]:  # fmt: skip
    """Output and cell, in one or both directions.

    i = f(Wi x + Ri y' + pi c' + bi), f likewise, z = g(Wz x + Rz y' + bz), c = c' f + i z,
    clipped, o = f(Wo x + Ro y' + po c + bo), y = h(c) o. With coupled gates 1 - i is in the
    place of f.
    """
    units, options = p.outputVectorSize, p.params
    coupled = options.coupledInputAndForgetGate
    early = ["inputGate"] if coupled else ["inputGate", "forgetGate"]
    names = [*early, "outputGate", "blockInput"]
    weights, recursions, biases = (
        [f"{name}{what}" for name in names]
        for what in ("WeightMatrix", "RecursionMatrix", "BiasVector")
    )
    gates = _gates(p, parts, weights, recursions, biases if options.hasBiasVectors else [])
    entries = gates.project(x, reverse)
    if options.forgetBias and not options.hasBiasVectors and not coupled:
        entries[..., units : 2 * units] += 1
    peepholes = [
        np.stack([part.weight(f"{name}PeepholeVector", (units,)) for part in parts])[:, None]
        for name in [*early, "outputGate"]
    ] if options.hasPeepholeVectors else []  # fmt: skip
    f, g, h = (_function(a) for a in activations)
    limit = np.float32(options.cellClipThreshold)
    split, last = units * len(early), units * (len(early) + 1)

    def step(entry: Array, state: States) -> States:
        before, cell = state
        total = np.matmul(before, gates.recursion)
        total += entry
        for index, peephole in enumerate(peepholes[:-1]):
            total[..., index * units : (index + 1) * units] += peephole * cell
        late = total[..., split:last].copy() if peepholes else None
        opened = f(_bounded(total)[..., : split if peepholes else last])
        i = opened[..., :units]
        kept = cell * (1 - i if coupled else opened[..., units:split])
        kept += i * g(total[..., last:])
        cell = clipped(kept, -limit, limit)
        o = opened[..., split:] if late is None else f(_bounded(late + peepholes[-1] * cell))
        return h(cell) * o, cell

    first = _initial(states, 2, len(parts), (x.shape[1], units))
    return _walk(step, entries, first)


@kernel("uniDirectionalLSTM")
def uni_directional_lstm(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """Output, last output and last cell."""
    y, last = _lstm(p, [p.weightParams], p.activations, x, states, [p.reverseInput])
    return _blobs(y[:, 0], last, p.params.sequenceOutput)


@kernel("biDirectionalLSTM")
def bi_directional_lstm(p: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """Output, last output and cell forward, last output and cell backward.

    The output has the forward half first.
    """
    ahead = p.activationsForwardLSTM
    behind = p.activationsBackwardLSTM or ahead
    if [a.message for a in ahead] == [a.message for a in behind]:
        y, last = _lstm(p, p.weightParams, ahead, x, states, [False, True])
        forward, backward = y[:, 0], y[:, 1]
    else:
        one, other = p.weightParams
        y, end = _lstm(p, [one], ahead, x, states[:2], [False])
        z, start = _lstm(p, [other], behind, x, states[2:], [True])
        forward, backward = y[:, 0], z[:, 0]
        last = tuple(np.concatenate(pair) for pair in zip(end, start, strict=True))
    if p.params.sequenceOutput:
        y = np.concatenate([forward, backward[::-1]], axis=-1)
    else:
        y = np.concatenate([forward[-1:], backward[-1:]], axis=-1)
    return _blobs(y, last, True)
