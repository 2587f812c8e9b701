"""Gradients of recurrent layers, back through time.

The walk is done again, and this time all gates of all steps are kept; then steps are taken from
the last to the first. Inside, arrays are [Seq, Batch, units], in the order of the walk.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.layers.elementwise.gradient import (
    OF_INPUTS,
    OF_OUTPUTS,
    hard_sigmoid_slope,
    scaled_tanh_slope,
)
from mlferry.layers.gradients import INPUTS, Array, LayerRun, gradient
from mlferry.layers.params import Params
from mlferry.layers.recurrent.kernel import activation_of
from mlferry.numerics.gates import CELL_CLIP, FIXED, fields_of
from mlferry.numerics.gradients import reduced_to


class GateFunction:
    """An activation of a recurrent layer and its slope; with `clip` of a sum, clipped first."""

    def __init__(self, a: Params, *, clip: bool) -> None:
        self._a, self._clip = a, clip
        self._function = activation_of(a, clip=clip)

    def __call__(self, x: Array) -> Array:
        """What it makes of values."""
        y = np.empty_like(x)
        self._function(x, y)
        return y

    def slope(self, x: Array, y: Array) -> Array:
        """The slope where the function went from x to y."""
        kind = self._a.which("NonlinearityType") or "linear"
        inner = getattr(self._a, kind)
        if self._clip:
            clipped = np.abs(x) > CELL_CLIP
            x = np.clip(x, -CELL_CLIP, CELL_CLIP)
        constants = (getattr(inner.message, "alpha", 0), getattr(inner.message, "beta", 0))
        alpha, beta = constants if any(constants) else FIXED.get(kind, constants)
        slope: Any
        if kind == "linear":
            slope = np.full_like(x, 1 if not any(constants) else inner.alpha)
        elif kind == "scaledTanh":
            slope = scaled_tanh_slope(y, alpha, beta)
        elif kind == "sigmoidHard":
            slope = hard_sigmoid_slope(x, alpha, beta)
        else:
            slope = (OF_OUTPUTS.get(kind) or OF_INPUTS[kind])(inner, x, y)
        return np.where(clipped, 0, slope) if self._clip else np.asarray(slope)


@dataclass
class GateMatrices:
    """The weights of a layer's gates, [gates, units, C], [gates, units, units], [gates, units]."""

    names: Sequence[Sequence[str]]
    weights: Array
    recursions: Array
    biases: Array

    @classmethod
    def of(
        cls, params: Params, part: Params, names: Sequence[Sequence[str]], bias: bool
    ) -> GateMatrices:
        """Read by the fields of each gate: weights, recursions and biases."""
        units, channels = params.outputVectorSize, params.inputVectorSize
        weights, recursions, biases = names
        return cls(
            names,
            np.stack([part.weight(name, (units, channels)) for name in weights]),
            np.stack([part.weight(name, (units, units)) for name in recursions]),
            np.stack([part.weight(name, (units,)) for name in biases])
            if bias
            else np.zeros((len(weights), units), np.float32),
        )

    def project(self, x: Array) -> Array:
        """[Seq, gates, Batch, units] of [Seq, Batch, C]: what does not depend on the states."""
        result = np.einsum("tbc,guc->tgbu", x, self.weights, optimize=True)
        return result + self.biases[:, None]

    def tell(
        self, run: LayerRun, path: str, sums: Array, x: Array, before: Sequence[Array]
    ) -> Array:
        """The gradient of x [Seq, Batch, C]; and, of the weights that are trained, theirs.

        Args:
            path: the path of the message that holds the weights, with a dot, or nothing.
            sums: the gradients of what goes into the functions, [Seq, gates, Batch, units].
            before: for each gate, what its recursion is multiplied with, [Seq, Batch, units].
        """
        for index, (weights, recursion, bias) in enumerate(zip(*self.names, strict=True)):
            of_gate = sums[:, index].reshape(-1, sums.shape[-1])
            run.weight(path + weights, functools.partial(_over_time, of_gate, x))
            run.weight(path + recursion, functools.partial(_over_time, of_gate, before[index]))
            run.weight(path + bias, functools.partial(np.sum, of_gate, axis=0))
        return np.einsum("tgbu,guc->tbc", sums, self.weights, optimize=True)


def _over_time(of_gate: Array, factor: Array) -> Array:
    """The gradient of a matrix: summed over steps and samples."""
    product: Array = of_gate.T @ factor.reshape(len(of_gate), -1)
    return product


def _walked(x: Array, reverse: bool) -> Array:
    """[Seq, Batch, C] of an input, in the order of the walk."""
    flat = x.reshape(*x.shape[:2], -1)
    return flat[::-1] if reverse else flat


def _first(state: Array | None, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
    if state is None:
        return np.zeros(shape, dtype)
    return np.broadcast_to(state.reshape(-1, shape[1]), shape)


def _of_state(total: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an initial state, which may be one for the whole batch."""
    return reduced_to(total, (shape[1], total.shape[1])).reshape(shape)


def _behind(dy: Array, length: int, *, sequence: bool) -> Array:
    """[Seq, Batch, units], in the order of the output, where it is the last step only."""
    flat = dy.reshape(*dy.shape[:2], -1)
    if sequence:
        return flat.copy()
    total = np.zeros((length, *flat.shape[1:]), flat.dtype)
    total[-1] = flat[0]
    return total


def _shifted(first: Array, states: Array) -> Array:
    """The states before each step."""
    return np.concatenate([first[None], states[:-1]])


@gradient("simpleRecurrent", keeps=INPUTS)
def simple_recurrent(run: LayerRun, dy: Array, dlast: Array | None = None) -> tuple[Array, ...]:
    params, reverse = run.params, run.params.reverseInput
    names = [["weightMatrix"], ["recursionMatrix"], ["biasVector"]]
    gates = GateMatrices.of(params, params, names, params.hasBiasVector)
    x = _walked(run.inputs[0], reverse)
    function = GateFunction(params.activation, clip=True)
    start = _first(_state_input(run, 1), (x.shape[1], params.outputVectorSize), x.dtype)
    entries = gates.project(x)[:, 0]
    y, sums, before = np.empty_like(entries), np.empty_like(entries), start
    recursion = gates.recursions[0]
    for t, entry in enumerate(entries):
        sums[t] = entry + before @ recursion.T
        before = y[t] = function(sums[t])
    behind = _behind(dy, len(x), sequence=params.sequenceOutput)
    if dlast is not None:
        behind[-1] += dlast.reshape(behind[-1].shape)
    slopes = function.slope(sums, y)
    through = np.zeros_like(start)
    for t in reversed(range(len(x))):
        sums[t] = (behind[t] + through) * slopes[t]
        through = sums[t] @ recursion
    dx = gates.tell(run, "", sums[:, None], x, [_shifted(start, y)])
    return _results(run, dx, reverse, [through])


def _state_input(run: LayerRun, place: int) -> Array | None:
    return run.inputs[place] if len(run.inputs) > place else None


def _results(run: LayerRun, dx: Array, reverse: bool, states: Sequence[Array]) -> tuple[Array, ...]:
    """The gradients of the input and of the initial states that came as inputs."""
    shape = run.input_shapes[0]
    total = (dx[::-1] if reverse else dx).reshape(shape)
    shapes = run.input_shapes[1:]
    return (total, *(_of_state(s, wide) for s, wide in zip(states, shapes, strict=False)))


@gradient("gru", keeps=INPUTS)
def gru(run: LayerRun, dy: Array, dlast: Array | None = None) -> tuple[Array, ...]:
    params, reverse = run.params, run.params.reverseInput
    names = fields_of(["updateGate", "resetGate", "outputGate"])
    gates = GateMatrices.of(params, params, names, params.hasBiasVectors)
    x = _walked(run.inputs[0], reverse)
    inner, outer = (GateFunction(a, clip=True) for a in params.activations)
    start = _first(_state_input(run, 1), (x.shape[1], params.outputVectorSize), x.dtype)
    sums = gates.project(x)
    activated = np.empty_like(sums)  # z, r, o of every step
    y = np.empty((len(x), *start.shape), x.dtype)
    opened = np.empty_like(y)  # r y'
    update, reset, recursion = gates.recursions
    before = start
    for t in range(len(x)):
        sums[t, 0] += before @ update.T
        sums[t, 1] += before @ reset.T
        activated[t, :2] = inner(sums[t, :2])
        z, r, o = activated[t]
        opened[t] = r * before
        sums[t, 2] += opened[t] @ recursion.T
        o[...] = outer(sums[t, 2])
        before = y[t] = (1 - z) * o + z * before
    behind = _behind(dy, len(x), sequence=params.sequenceOutput)
    if dlast is not None:
        behind[-1] += dlast.reshape(behind[-1].shape)
    early, late = (
        inner.slope(sums[:, :2], activated[:, :2]),
        outer.slope(sums[:, 2], activated[:, 2]),
    )
    states = _shifted(start, y)
    through = np.zeros_like(start)
    back = sums  # from here on the gradients of the sums
    for t in reversed(range(len(x))):
        total, (z, r, o) = behind[t] + through, activated[t]
        back[t, 2] = total * (1 - z) * late[t]
        of_opened = back[t, 2] @ recursion
        back[t, 0] = total * (states[t] - o) * early[t, 0]
        back[t, 1] = of_opened * states[t] * early[t, 1]
        through = total * z + of_opened * r + back[t, 0] @ update + back[t, 1] @ reset
    dx = gates.tell(run, "", back, x, [states, states, opened])
    return _results(run, dx, reverse, [through])


class LstmWalk:
    """One direction of an LSTM, walked with everything kept.

    Args:
        params: the layer's parameters.
        part: the weights.
        activations: of gates, block input and output.
        x: [Seq, Batch, C], in the order of the walk.
        initial: initial output and cell.
    """

    def __init__(
        self,
        params: Params,
        part: Params,
        activations: Sequence[Params],
        x: Array,
        initial: tuple[Array | None, Array | None],
    ) -> None:
        options, units = params.params, params.outputVectorSize
        self.coupled = options.coupledInputAndForgetGate
        self.early = ["inputGate"] if self.coupled else ["inputGate", "forgetGate"]
        names = fields_of([*self.early, "outputGate", "blockInput"])
        self.gates = GateMatrices.of(params, part, names, options.hasBiasVectors)
        self.f, self.g = (GateFunction(a, clip=True) for a in activations[:2])
        self.h = GateFunction(activations[2], clip=False)
        self.x, self.limit = x, np.float32(options.cellClipThreshold)
        self.peepholes = [
            part.weight(f"{name}PeepholeVector", (units,))
            for name in ([*self.early, "outputGate"] if options.hasPeepholeVectors else [])
        ]
        self.sums = self.gates.project(x)
        if options.forgetBias and not options.hasBiasVectors and not self.coupled:
            self.sums[:, 1] += 1
        shape = (x.shape[1], units)
        self.activated = np.empty_like(self.sums)  # what the functions make of the sums
        self.y, self.raw, self.shown = (np.empty((len(x), *shape), x.dtype) for _ in range(3))
        self.cells = np.empty((len(x) + 1, *shape), x.dtype)
        self.start, self.cells[0] = (_first(state, shape, x.dtype) for state in initial)
        self._walk()

    def _walk(self) -> None:
        sums, activated, cells = self.sums, self.activated, self.cells
        count, before = len(self.early), self.start
        for t in range(len(self.x)):
            sums[t] += np.matmul(before, self.gates.recursions.swapaxes(-1, -2))
            for index, peephole in enumerate(self.peepholes[:-1]):
                sums[t, index] += peephole * cells[t]
            activated[t, :count] = self.f(sums[t, :count])
            activated[t, -1] = self.g(sums[t, -1])
            self.raw[t] = cells[t] * self.forget(t) + activated[t, 0] * activated[t, -1]
            cells[t + 1] = np.clip(self.raw[t], -self.limit, self.limit)
            if self.peepholes:
                sums[t, -2] += self.peepholes[-1] * cells[t + 1]
            activated[t, -2] = self.f(sums[t, -2])
            self.shown[t] = self.h(cells[t + 1])
            before = self.y[t] = activated[t, -2] * self.shown[t]

    def forget(self, t: int) -> Array:
        """What the cell is multiplied with."""
        return 1 - self.activated[t, 0] if self.coupled else self.activated[t, 1]

    def back(self, behind: Array, through: Array, of_cell: Array) -> tuple[Array, Array, Array]:
        """The gradients of the sums, and of the initial output and cell.

        Args:
            behind: the gradient of the outputs, [Seq, Batch, units], in the order of the walk.
            through: that of the last output, besides.
            of_cell: that of the last cell.
        """
        activated, back = self.activated, np.empty_like(self.sums)
        slopes = np.concatenate(
            [
                self.f.slope(self.sums[:, :-1], activated[:, :-1]),
                self.g.slope(self.sums[:, -1:], activated[:, -1:]),
            ],
            axis=1,
        )
        of_shown = self.h.slope(self.cells[1:], self.shown)
        inside = np.abs(self.raw) <= self.limit
        for t in reversed(range(len(self.x))):
            total, (i, o, z) = (
                behind[t] + through,
                (activated[t, 0], activated[t, -2], activated[t, -1]),
            )
            back[t, -2] = total * self.shown[t] * slopes[t, -2]
            of_cell = of_cell + total * o * of_shown[t]
            if self.peepholes:
                of_cell = of_cell + back[t, -2] * self.peepholes[-1]
            of_cell = of_cell * inside[t]
            back[t, -1] = of_cell * i * slopes[t, -1]
            of_input = of_cell * z
            if self.coupled:
                of_input = of_input - of_cell * self.cells[t]
            else:
                back[t, 1] = of_cell * self.cells[t] * slopes[t, 1]
            back[t, 0] = of_input * slopes[t, 0]
            of_cell = of_cell * self.forget(t)
            for index, peephole in enumerate(self.peepholes[:-1]):
                of_cell = of_cell + back[t, index] * peephole
            through = np.matmul(back[t], self.gates.recursions).sum(axis=0)
        return back, through, of_cell

    def tell(self, run: LayerRun, path: str, back: Array) -> Array:
        """The gradient of x; see `GateMatrices.tell`."""
        for index in range(len(self.peepholes)):
            name = [*self.early, "outputGate"][index]
            factor = self.cells[1:] if name == "outputGate" else self.cells[:-1]
            run.weight(
                f"{path}{name}PeepholeVector", functools.partial(_summed, back[:, index], factor)
            )
        states = _shifted(self.start, self.y)
        return self.gates.tell(run, path, back, self.x, [states] * back.shape[1])


def _summed(gradient: Array, factor: Array) -> Array:
    return (gradient * factor).sum(axis=(0, 1))


def _lstm(
    run: LayerRun,
    part: Params,
    path: str,
    activations: Sequence[Params],
    x: Array,
    place: int,
    behind: Array,
    last: Sequence[Array],
) -> tuple[Array, Array, Array]:
    """One direction: the gradients of x, and of the initial output and cell.

    Args:
        path: of the message of weights, with a dot.
        activations: of gates, block input and output.
        x: [Seq, Batch, C], in the order of the walk, as is its gradient.
        place: of the initial output among the inputs; the cell follows.
        behind: see `LstmWalk.back`.
        last: the gradients of the last output and cell, if they are outputs.
    """
    initial = (_state_input(run, place), _state_input(run, place + 1))
    walk = LstmWalk(run.params, part, activations, x, initial)
    shape = walk.start.shape
    ends = [each.reshape(shape) for each in last] or [np.zeros(shape, x.dtype)] * 2
    back, of_start, of_cell = walk.back(behind, *ends)
    return walk.tell(run, path, back), of_start, of_cell


@gradient("uniDirectionalLSTM", keeps=INPUTS)
def uni_directional_lstm(run: LayerRun, dy: Array, *dlast: Array) -> tuple[Array, ...]:
    params, reverse = run.params, run.params.reverseInput
    x = _walked(run.inputs[0], reverse)
    behind = _behind(dy, len(x), sequence=params.params.sequenceOutput)
    part, activations = params.weightParams, params.activations
    dx, *states = _lstm(run, part, "weightParams.", activations, x, 1, behind, dlast)
    return _results(run, dx, reverse, states)


@gradient("biDirectionalLSTM", keeps=INPUTS)
def bi_directional_lstm(run: LayerRun, dy: Array, *dlast: Array) -> tuple[Array, ...]:
    """Both directions read the same input: their gradients are added."""
    params, length = run.params, run.input_shapes[0][0]
    sequence = params.params.sequenceOutput
    ahead = params.activationsForwardLSTM
    functions = [ahead, params.activationsBackwardLSTM or ahead]
    halves = np.split(dy.reshape(*dy.shape[:2], -1), 2, axis=-1)
    total = np.zeros((length, run.input_shapes[0][1], params.inputVectorSize), dy.dtype)
    states: list[Array] = []
    for index, (half, activations) in enumerate(zip(halves, functions, strict=True)):
        behind = _behind(half, length, sequence=sequence)
        behind = behind[::-1] if index and sequence else behind
        x = _walked(run.inputs[0], bool(index))
        part, path, place = params.weightParams[index], f"weightParams[{index}].", 2 * index + 1
        last = dlast[place - 1 : place + 1]
        dx, *more = _lstm(run, part, path, activations, x, place, behind, last)
        total += dx[::-1] if index else dx
        states += more
    return _results(run, total, False, states)
