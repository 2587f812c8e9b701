"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out.

Initial states may come as further inputs, [1, Batch, units, 1, 1] each; without them they are
zero. `reverseInput` walks the sequence from its end; the outputs of a sequence come in the
order of the walk, except those of the backward half of a bidirectional layer, which are in the
order of the input.

Inside, arrays have an axis of directions: states [directions, Batch, units]. What does not depend
on the states is computed for all steps at once, and all gates of a step, [gates, directions,
Batch, units], are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlferry.compiled import is_active
from mlferry.layers.elementwise.kernel import clipped, function_of
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.numerics.functions import hard_sigmoid, scaled_tanh, sigmoid
from mlferry.numerics.gates import CELL_CLIP, FIXED, fields_of

if TYPE_CHECKING:
    from mlferry.compiled.lstm import PackedLSTM

_CLIP, _ONE, _HALF = np.float32(CELL_CLIP), np.float32(1), np.float32(0.5)

States = tuple[Array, ...]
Step = Callable[[Array, States, Array], States]
Function = Callable[[Array, Array], object]  # of the first array, into the second

# Recurrent layers know these with these constants only, so writers leave them out.
_FIXED: dict[str, Callable[[Array], Array]] = {
    "scaledTanh": lambda x: scaled_tanh(x, *FIXED["scaledTanh"]),
    "sigmoidHard": lambda x: hard_sigmoid(x, *FIXED["sigmoidHard"]),
    "linear": lambda x: x,
}
_INTO: dict[str, Function] = {"tanh": np.tanh, "sigmoid": sigmoid}
_SATURATED = ("tanh", "sigmoid", "scaledTanh", "sigmoidHard")


def activation_of(activation: Params, *, clip: bool = False) -> Function:
    """An activation of a recurrent layer.

    `clip` clips its input first, except for activations that are constant there anyway.
    """
    return activation.once(f"function, clip={clip}", lambda: _build(activation, clip))


def _build(activation: Params, clip: bool) -> Function:
    kind = activation.which("NonlinearityType") or "linear"
    message = getattr(activation, kind)
    fixed = not (getattr(message, "alpha", 0) or getattr(message, "beta", 0))
    if kind in _INTO:
        return _INTO[kind]
    function = _FIXED[kind] if kind in _FIXED and fixed else function_of(activation)
    if clip and not (kind in _SATURATED and fixed):
        return lambda x, out: np.copyto(out, function(clipped(x, -_CLIP, _CLIP)))
    return lambda x, out: np.copyto(out, function(x))


class GateWeights(NamedTuple):
    """The weights of gates that are computed together, in all directions.

    Attributes:
        matrix: [gates, directions, C + 1, units]; the last row is the bias.
        recursion: [gates, directions, units, units].
    """

    matrix: Array
    recursion: Array

    def project(self, x: Array, reverse: Sequence[bool]) -> Array:
        """[Seq, gates, directions, Batch, units], each direction in the order of its walk."""
        length, batch = x.shape[:2]
        rows = np.ones((len(reverse), length, batch, self.matrix.shape[2]), x.dtype)
        for walked, back in zip(rows, reverse, strict=True):
            walked[..., :-1] = (x[::-1] if back else x).reshape(length, batch, -1)
        result = np.matmul(rows.reshape(len(reverse), length * batch, -1), self.matrix)
        return result.reshape(*result.shape[:2], length, batch, -1).transpose(2, 0, 1, 3, 4)


def _gates(
    params: Params,
    parts: Sequence[Params],
    weights: Sequence[str],
    recursions: Sequence[str],
    biases: Sequence[str],
    halved: int = 0,
) -> GateWeights:
    """Gates one after another, read once; `biases` may be empty, the first gates halved."""
    units = params.outputVectorSize

    def joined(names: Sequence[str], shape: tuple[int, ...]) -> Array:
        """[gates, directions, *shape]."""
        return np.stack([np.stack([part.weight(name, shape) for part in parts]) for name in names])

    def read() -> GateWeights:
        matrix = joined(weights, (units, params.inputVectorSize)).swapaxes(-1, -2)
        recursion = joined(recursions, (units, units)).swapaxes(-1, -2)
        bias = np.zeros((*matrix.shape[:2], units), np.float32)
        if biases:
            bias = joined(biases, (units,))
        matrix = np.concatenate([matrix, bias[:, :, None]], axis=2)
        recursion = np.ascontiguousarray(recursion)
        matrix[:halved] *= _HALF
        recursion[:halved] *= _HALF
        return GateWeights(matrix, recursion)

    return parts[0].once(f"gates {'+'.join(weights)} of {len(parts)}", read)


def _initial(
    states: Sequence[Array],
    count: int,
    directions: int,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
) -> States:
    """The first states [directions, Batch, units]; the inputs are ordered by direction."""
    if not states:
        return (np.zeros((directions, *shape), dtype),) * count
    return tuple(
        np.stack(
            [
                np.broadcast_to(states[count * d + s].reshape(-1, shape[1]), shape)
                for d in range(directions)
            ]
        )
        for s in range(count)
    )


def _walk(step: Step, entries: Array, states: States) -> tuple[Array, States]:
    """The outputs [Seq, directions, Batch, units], which are the first state; the last states."""
    outputs = np.empty((len(entries), *states[0].shape), entries.dtype)
    for entry, output in zip(entries, outputs, strict=True):
        states = step(entry, states, output)
    return outputs, states


def _blobs(y: Array, states: States, sequence: bool) -> tuple[Array, ...]:
    """The output [Seq, Batch, units], whole or its last step, and the states, in five axes."""
    shown = y if sequence else y[-1:]
    apart = (state[d] for d in range(len(states[0])) for state in states)
    return (shown[..., None, None], *(state[None, :, :, None, None] for state in apart))


@kernel("simpleRecurrent")
def simple_recurrent(params: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """y = f(W x + R y' + b)."""
    bias = ["biasVector"] if params.hasBiasVector else []
    gates = _gates(params, [params], ["weightMatrix"], ["recursionMatrix"], bias)
    function = activation_of(params.activation, clip=True)
    recursion = gates.recursion[0]

    def step(entry: Array, state: States, output: Array) -> States:
        np.matmul(state[0], recursion, out=output)
        np.add(output, entry[0], out=output)
        function(output, output)
        return (output,)

    first = _initial(states, 1, 1, (x.shape[1], params.outputVectorSize), x.dtype)
    y, last = _walk(step, gates.project(x, [params.reverseInput]), first)
    return _blobs(y[:, 0], last, params.sequenceOutput)


@kernel("gru")
def gru(params: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """The reset gate is applied to the state before the recursion matrix.

    z = f(Wz x + Rz y' + bz), r = f(Wr x + Rr y' + br), o = g(Wo x + Ro (r y') + bo),
    y = (1 - z) o + z y'.
    """
    units = params.outputVectorSize

    def of(*names: str) -> GateWeights:
        weights, recursions, biases = fields_of([f"{name}Gate" for name in names])
        return _gates(
            params, [params], weights, recursions, biases if params.hasBiasVectors else []
        )

    early, late = of("update", "reset"), of("output")
    inner, outer = (activation_of(a, clip=True) for a in params.activations)
    first, second = early.recursion, late.recursion[0]
    total = np.empty((3, 1, x.shape[1], units), x.dtype)
    opened, (z, r, o) = total[:2], total

    def step(entry: Array, state: States, output: Array) -> States:
        (before,) = state
        np.matmul(before, first, out=opened)
        np.add(opened, entry[:2], out=opened)
        inner(opened, opened)
        np.multiply(before, r, out=r)
        np.matmul(r, second, out=o)
        np.add(o, entry[2], out=o)
        outer(o, o)
        np.subtract(before, o, out=output)  # (1 - z) o + z y' = o + z (y' - o)
        np.multiply(output, z, out=output)
        np.add(output, o, out=output)
        return (output,)

    reverse = [params.reverseInput]
    entries = np.concatenate([early.project(x, reverse), late.project(x, reverse)], axis=1)
    y, last = _walk(step, entries, _initial(states, 1, 1, (x.shape[1], units), x.dtype))
    return _blobs(y[:, 0], last, params.sequenceOutput)


def _lstm(
    params: Params,
    parts: Sequence[Params],
    activations: Sequence[Params],
    x: Array,
    states: Sequence[Array],
    reverse: Sequence[bool],
) -> tuple[Array, States]:
    """Output and cell, in one or both directions.

    i = f(Wi x + Ri y' + pi c' + bi), f likewise, z = g(Wz x + Rz y' + bz), c = c' f + i z,
    clipped, o = f(Wo x + Ro y' + po c + bo), y = h(c) o. With coupled gates 1 - i is in the
    place of f.
    """
    units, options = params.outputVectorSize, params.params
    coupled = options.coupledInputAndForgetGate
    early = ["inputGate"] if coupled else ["inputGate", "forgetGate"]
    names = [*early, "outputGate", "blockInput"]
    weights, recursions, biases = fields_of(names)
    kinds = [a.which("NonlinearityType") for a in activations]
    is_plain = x.dtype == np.float32 and x.size > 0
    if is_active() and is_plain and is_standard(params, parts, kinds):
        return _compiled_lstm(params, parts, x, states, reverse)
    usual = kinds[:2] == ["sigmoid", "tanh"] and not options.hasPeepholeVectors
    gates = _gates(
        params,
        parts,
        weights,
        recursions,
        biases if options.hasBiasVectors else [],
        len(names) - 1 if usual else 0,
    )
    entries = gates.project(x, reverse)
    if options.forgetBias and not options.hasBiasVectors and not coupled:
        entries[:, 1] += _HALF if usual else _ONE
    peepholes = (
        [
            np.stack([part.weight(f"{name}PeepholeVector", (units,)) for part in parts])[:, None]
            for name in [*early, "outputGate"]
        ]
        if options.hasPeepholeVectors
        else []
    )
    f, g = (activation_of(a, clip=True) for a in activations[:2])
    h = activation_of(activations[2])
    at_once = list(enumerate(peepholes[:-1]))
    limit = np.float32(options.cellClipThreshold)
    least, recursion = -limit, gates.recursion
    before, cell = _initial(states, 2, len(parts), (x.shape[1], units), x.dtype)
    cell = cell.copy()
    # Without clipping a cell grows by at most one per step.
    clips = not (usual and len(x) + np.abs(cell).max(initial=0) <= limit)
    total = np.empty((len(names), *cell.shape), x.dtype)
    first, i, o, z = total[: len(early) if peepholes else -1], total[0], total[-2], total[-1]
    remaining = np.empty_like(cell) if coupled else total[1]

    def step(entry: Array, state: States, output: Array) -> States:
        np.matmul(state[0], recursion, total)
        np.add(total, entry, total)
        for gate, peephole in at_once:
            total[gate] += peephole * cell
        if usual:  # sigmoid(x) is (tanh(x / 2) + 1) / 2
            np.tanh(total, total)
            np.multiply(first, _HALF, first)
            np.add(first, _HALF, first)
        else:
            f(first, first)
            g(z, z)
        if coupled:
            np.subtract(_ONE, i, remaining)
        np.multiply(cell, remaining, cell)
        np.multiply(i, z, z)
        np.add(cell, z, cell)
        if clips:
            clipped(cell, least, limit, out=cell)
        if peepholes:
            np.add(o, peepholes[-1] * cell, o)
            f(o, o)
        h(cell, output)
        np.multiply(output, o, output)
        return output, cell

    return _walk(step, entries, (before, cell))


def is_standard(params: Params, parts: Sequence[Params], kinds: Sequence[str | None]) -> bool:
    """Whether it is the LSTM that the compiled kernel computes, with activations of such kinds."""
    options = params.params
    return (
        kinds == ["sigmoid", "tanh", "tanh"]
        and not options.hasPeepholeVectors
        and not options.coupledInputAndForgetGate
        and not any(part.has_given for part in parts)
    )


def packed_lstm(params: Params, parts: Sequence[Params]) -> PackedLSTM:
    """The weights of an LSTM that `is_standard`, in one or both directions."""
    from mlferry.compiled.lstm import PackedLSTM

    units, options = params.outputVectorSize, params.params

    def read() -> PackedLSTM:
        names = ("inputGate", "forgetGate", "outputGate", "blockInput")
        inputs, recursions, biases = (
            np.stack([[part.weight(f"{name}{what}", shape) for name in names] for part in parts])
            if is_there
            else np.zeros((len(parts), len(names), *shape), np.float32)
            for what, shape, is_there in (
                ("WeightMatrix", (units, params.inputVectorSize), True),
                ("RecursionMatrix", (units, units), True),
                ("BiasVector", (units,), options.hasBiasVectors),
            )
        )
        if options.forgetBias and not options.hasBiasVectors:
            biases[:, 1] += _ONE
        return PackedLSTM.of(inputs, recursions, biases)

    return parts[0].once(f"compiled gates of {len(parts)}", read)


def _compiled_lstm(
    params: Params,
    parts: Sequence[Params],
    x: Array,
    states: Sequence[Array],
    reverse: Sequence[bool],
) -> tuple[Array, States]:
    """As `_lstm`, by the compiled kernel."""
    shape = (x.shape[1], params.outputVectorSize)
    before, cell = _initial(states, 2, len(parts), shape, x.dtype)
    rows = x.reshape(*x.shape[:2], -1)
    limit = np.float32(params.params.cellClipThreshold)
    outputs, cell = packed_lstm(params, parts)(rows, before, cell, limit, reverse)
    return outputs, (outputs[-1], cell)


@kernel("uniDirectionalLSTM")
def uni_directional_lstm(params: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """Output, last output and last cell."""
    y, last = _lstm(
        params, [params.weightParams], params.activations, x, states, [params.reverseInput]
    )
    return _blobs(y[:, 0], last, params.params.sequenceOutput)


@kernel("biDirectionalLSTM")
def bi_directional_lstm(params: Params, x: Array, *states: Array) -> tuple[Array, ...]:
    """Output, last output and cell forward, last output and cell backward.

    The output has the forward half first.
    """
    ahead = params.activationsForwardLSTM
    behind = params.activationsBackwardLSTM or ahead
    if [a.message for a in ahead] == [a.message for a in behind]:
        y, last = _lstm(params, params.weightParams, ahead, x, states, [False, True])
        forward, backward = y[:, 0], y[:, 1]
    else:
        one, other = params.weightParams
        y, end = _lstm(params, [one], ahead, x, states[:2], [False])
        z, start = _lstm(params, [other], behind, x, states[2:], [True])
        forward, backward = y[:, 0], z[:, 0]
        last = tuple(np.concatenate(pair) for pair in zip(end, start, strict=True))
    if params.params.sequenceOutput:
        y = np.concatenate([forward, backward[::-1]], axis=-1)
    else:
        y = np.concatenate([forward[-1:], backward[-1:]], axis=-1)
    return _blobs(y, last, True)
