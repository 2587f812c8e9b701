"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out.

ONNX's own nodes compute them wherever their clipping cannot tell: Core ML clips sums at 50, where
bounded activations are constant, and the cells of an LSTM at a threshold, which so many steps may
not be able to reach. Everything else is a `Scan` over the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlferry.layers.elementwise.onnx import ACTIVATIONS
from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.numerics.gates import CELL_CLIP, FIXED
from mlferry.numerics.shapes import Array
from mlferry.onnx_graph.emitter import Emitter
from mlferry.onnx_graph.graph import Body, Port
from mlferry.refusals import refuse

_NO_LIMIT = 50000.0  # what Apple's builder writes where cells are not to be clipped
# ONNX's name, and how many of alpha and beta it takes
_NODES = {
    "linear": ("Affine", 2), "ReLU": ("Relu", 0), "leakyReLU": ("LeakyRelu", 1),
    "thresholdedReLU": ("ThresholdedRelu", 1), "tanh": ("Tanh", 0), "sigmoid": ("Sigmoid", 0),
    "scaledTanh": ("ScaledTanh", 2), "sigmoidHard": ("HardSigmoid", 2), "ELU": ("Elu", 1),
    "softsign": ("Softsign", 0), "softplus": ("Softplus", 0),
}  # fmt: skip
# Recurrent layers know these with these constants only, so writers leave them out.
_FIXED = {**FIXED, "linear": (1.0, 0.0)}

_LIMITS = "activations with weights: PReLU and parametricSoftplus"


@dataclass(frozen=True)
class Function:
    """An activation with its constants."""

    kind: str
    message: Any

    @classmethod
    def of(cls, activation: Params) -> Function:
        """What an `ActivationParams` message of a recurrent layer describes."""
        kind = activation.which("NonlinearityType") or "linear"
        message = getattr(activation, kind)
        if kind in _FIXED and not (message.alpha or message.beta):
            alpha, beta = _FIXED[kind]
            message = SimpleNamespace(alpha=alpha, beta=beta)
        return cls(kind, message)

    def apply(self, emitter: Emitter, x: str) -> str:
        """The activation of a value."""
        return ACTIVATIONS[self.kind](emitter, self.message, x)

    @property
    def bound(self) -> float | None:
        """The largest magnitude, of one that is constant from a sum of 50 on; else None."""
        if self.kind in ("sigmoid", "tanh"):
            return 1.0
        alpha, beta = getattr(self.message, "alpha", 0), getattr(self.message, "beta", 0)
        if self.kind == "sigmoidHard" and alpha * CELL_CLIP >= 1 + abs(beta):
            return 1.0
        if self.kind == "scaledTanh" and abs(beta) * CELL_CLIP >= 10:
            return abs(float(alpha))
        return None


def _attributes(functions: Sequence[Function]) -> dict[str, Any]:
    """The activations of a node, with their constants in one list each."""
    names, alphas, betas = [], [], []
    for function in functions:
        if function.kind not in _NODES:
            raise refuse(f"the activation {function.kind} in a recurrent layer")
        name, count = _NODES[function.kind]
        names.append(name)
        alphas += [float(function.message.alpha)] if count else []
        betas += [float(function.message.beta)] if count > 1 else []
    return {
        "activations": names,
        "activation_alpha": alphas or None,
        "activation_beta": betas or None,
    }


@dataclass(frozen=True)
class RecurrentLayer:
    """A recurrent layer with its input.

    Attributes:
        params: its parameters.
        parts: the messages that hold the weights, one per direction.
        reverse: whether a direction walks from the end.
        x: [Seq, Batch, C].
        states: first states [1, Batch, units], direction by direction; none for zeros.
    """

    params: Params
    parts: Sequence[Params]
    reverse: Sequence[bool]
    x: str
    states: Sequence[str]

    @property
    def direction(self) -> str:
        """ONNX's name of the directions."""
        if len(self.parts) == 2:
            return "bidirectional"
        return "reverse" if self.reverse[0] else "forward"


def _layer(
    emitter: Emitter,
    params: Params,
    parts: Sequence[Params],
    reverse: Sequence[bool],
    x: str,
    states: Sequence[str],
) -> RecurrentLayer:
    steps, batch = emitter.extents(x)[:2]
    first_states = [
        emitter.reshape(state, [1, emitter.extent(state, 1), params.outputVectorSize])
        for state in states
    ]
    spread = []
    for state in first_states:
        if emitter.shape(state)[1] == batch:
            spread.append(state)
            continue
        spread.append(
            emitter.node("Expand", state, emitter.vector([1, batch, params.outputVectorSize]))
        )
        emitter.shapes[spread[-1]] = (1, emitter.shape(x)[1], params.outputVectorSize)
    return RecurrentLayer(
        params, parts, reverse, emitter.reshape(x, [steps, batch, params.inputVectorSize]), spread
    )


def _stacked(
    emitter: Emitter, layer: RecurrentLayer, names: Sequence[str], shape: tuple[int, ...]
) -> str:
    """Weights of several gates, one below the other, [directions, gates * units, ...]."""
    rows = [
        emitter.expand(
            emitter.joined([_gate(emitter, layer, part, name, shape) for name in names], 0), [0]
        )
        for part in layer.parts
    ]
    return emitter.joined(rows, 0)


def _gate(
    emitter: Emitter, layer: RecurrentLayer, part: Params, name: str, shape: tuple[int, ...]
) -> str:
    """A weight; a gate that the layer does not have is 0."""
    if not name:
        return emitter.constant(np.zeros(shape, np.float32))
    return weight(emitter, part, name, shape)


def _weights(
    emitter: Emitter,
    layer: RecurrentLayer,
    names: tuple[list[str], list[str], list[str]],
    extra: Array | None = None,
) -> list[str]:
    """Matrices, recursions, and biases if there are some; `extra` is added to these."""
    units, inputs = layer.params.outputVectorSize, layer.params.inputVectorSize
    matrices, recursions, biases = names
    results = [
        _stacked(emitter, layer, matrices, (units, inputs)),
        _stacked(emitter, layer, recursions, (units, units)),
    ]
    none = emitter.constant(np.zeros((len(layer.parts), len(matrices) * units), np.float32))
    if biases:
        return [*results, emitter.joined([_stacked(emitter, layer, biases, (units,)), none], 1)]
    if extra is not None:
        both = np.tile(np.concatenate([extra, 0 * extra]), (len(layer.parts), 1))
        return [*results, emitter.constant(both.astype(np.float32))]
    return [*results, ""]


def _blobs(
    emitter: Emitter, layer: RecurrentLayer, sequence: bool, y: str, last: Sequence[str]
) -> tuple[str, ...]:
    """The outputs of a layer: all of y [Seq, directions, Batch, units], or its last step, and the
    last states, [directions, Batch, units] each.
    """
    units, both = layer.params.outputVectorSize, len(layer.parts) == 2
    steps, batch, _ = emitter.extents(layer.x)
    known = emitter.shape(layer.x)[:2]
    emitter.shapes[y] = (known[0], len(layer.parts), known[1], units)
    for state in last:
        emitter.shapes[state] = (len(layer.parts), known[1], units)
    if sequence and layer.direction == "reverse":
        y = emitter.sliced(y, 0, -1, np.iinfo(np.int64).min, -1)
    if sequence:
        turned = emitter.transpose(y, [0, 2, 1, 3]) if both else y
        shown = emitter.reshape(turned, [steps, batch, len(layer.parts) * units, 1, 1])
    else:
        turned = emitter.transpose(last[0], [1, 0, 2]) if both else last[0]
        shown = emitter.reshape(turned, [1, batch, len(layer.parts) * units, 1, 1])
    results = [shown]
    for direction in range(len(layer.parts)):
        for state in last:
            one = emitter.sliced(state, 0, direction, direction + 1) if both else state
            results.append(emitter.reshape(one, [1, batch, units, 1, 1]))
    return tuple(results)


def _first(emitter: Emitter, layer: RecurrentLayer, index: int, count: int) -> str:
    """One of the first states, [directions, Batch, units], or nothing for zeros."""
    if not layer.states:
        return ""
    return emitter.joined([layer.states[index + count * d] for d in range(len(layer.parts))], 0)


def _named(names: Sequence[str], biased: bool) -> tuple[list[str], list[str], list[str]]:
    matrices, recursions, biases = (
        [name and f"{name}{what}" for name in names]
        for what in ("WeightMatrix", "RecursionMatrix", "BiasVector")
    )
    return matrices, recursions, biases if biased else []


@op("simpleRecurrent", five_axes=True, limits=_LIMITS)
def simple_recurrent(emitter: Emitter, params: Params, x: str, *states: str) -> tuple[str, ...]:
    """y = f(W x + R y' + b)."""
    layer = _layer(emitter, params, [params], [params.reverseInput], x, states)
    names = (["weightMatrix"], ["recursionMatrix"], ["biasVector"] if params.hasBiasVector else [])
    return _of_one_state(emitter, "RNN", layer, names, [Function.of(params.activation)], {})


def _of_one_state(
    emitter: Emitter,
    node: str,
    layer: RecurrentLayer,
    names: tuple[list[str], list[str], list[str]],
    functions: Sequence[Function],
    options: dict[str, Any],
) -> tuple[str, ...]:
    y, last = emitter.nodes(
        node,
        [layer.x, *_weights(emitter, layer, names), "", _first(emitter, layer, 0, 1)],
        2,
        hidden_size=layer.params.outputVectorSize,
        direction=layer.direction,
        **_attributes(functions),
        **options,
        clip=None if all(function.bound for function in functions) else CELL_CLIP,
    )
    return _blobs(emitter, layer, layer.params.sequenceOutput, y, [last])


@op("gru", five_axes=True, limits=_LIMITS)
def gru(emitter: Emitter, params: Params, x: str, *states: str) -> tuple[str, ...]:
    """The reset gate is applied to the state before the recursion matrix."""
    layer = _layer(emitter, params, [params], [params.reverseInput], x, states)
    names = _named(["updateGate", "resetGate", "outputGate"], params.hasBiasVectors)
    functions = [Function.of(a) for a in params.activations]
    return _of_one_state(emitter, "GRU", layer, names, functions, {"linear_before_reset": 0})


# ---- LSTM ---------------------------------------------------------------------------------------


@op("uniDirectionalLSTM", five_axes=True, limits=_LIMITS)
def uni_directional_lstm(emitter: Emitter, params: Params, x: str, *states: str) -> tuple[str, ...]:
    """Output, last output and last cell."""
    layer = _layer(emitter, params, [params.weightParams], [params.reverseInput], x, states)
    return _lstm(emitter, layer, [[Function.of(a) for a in params.activations]])


@op("biDirectionalLSTM", five_axes=True, limits=_LIMITS)
def bi_directional_lstm(emitter: Emitter, params: Params, x: str, *states: str) -> tuple[str, ...]:
    """Output, last output and cell forward, last output and cell backward."""
    layer = _layer(emitter, params, list(params.weightParams), [False, True], x, states)
    ahead = params.activationsForwardLSTM
    both = (ahead, params.activationsBackwardLSTM or ahead)
    return _lstm(emitter, layer, [[Function.of(a) for a in one] for one in both])


def _lstm(
    emitter: Emitter, layer: RecurrentLayer, functions: list[list[Function]]
) -> tuple[str, ...]:
    native = all(_never_clipped(emitter, layer, one) for one in functions)
    make = _lstm_node if native else _lstm_steps
    y, *last = make(emitter, layer, functions)
    return _blobs(emitter, layer, layer.params.params.sequenceOutput, y, last)


def _never_clipped(emitter: Emitter, layer: RecurrentLayer, functions: Sequence[Function]) -> bool:
    """Whether neither the clipping of sums nor that of cells can change a value."""
    gate, block = (function.bound for function in functions[:2])
    limit = layer.params.params.cellClipThreshold
    if gate is None or block is None or gate > 1:
        return False
    steps = emitter.shape(layer.x)[0]
    if steps is None or layer.states:
        return bool(limit >= _NO_LIMIT)
    return bool(steps * block <= limit)


def _lstm_node(
    emitter: Emitter, layer: RecurrentLayer, functions: list[list[Function]]
) -> tuple[str, ...]:
    params, options = layer.params, layer.params.params
    coupled = options.coupledInputAndForgetGate
    gates = ["inputGate", "outputGate", "" if coupled else "forgetGate", "blockInput"]
    units = params.outputVectorSize
    one_more = None
    if options.forgetBias and not options.hasBiasVectors and not coupled:
        one_more = np.repeat(np.array([0, 0, 1, 0], np.float32), units)
    names = _named(gates, options.hasBiasVectors)
    inputs = [layer.x, *_weights(emitter, layer, names, one_more), ""]
    inputs += [_first(emitter, layer, index, 2) for index in range(2)]
    if options.hasPeepholeVectors:
        peepholes = [name and f"{name}PeepholeVector" for name in gates[:3]]
        inputs.append(_stacked(emitter, layer, peepholes, (units,)))
    every = [function for one in functions for function in one]
    return emitter.nodes(
        "LSTM",
        inputs,
        3,
        hidden_size=units,
        direction=layer.direction,
        **_attributes(every),
        input_forget=1 if coupled else None,
    )


def _bounded(emitter: Emitter, x: str, limit: float = CELL_CLIP) -> str:
    return emitter.node("Clip", x, emitter.number(-limit), emitter.number(limit))


Step = Callable[[str, str, str], tuple[str, str]]


def _lstm_steps(
    emitter: Emitter, layer: RecurrentLayer, functions: list[list[Function]]
) -> tuple[str, ...]:
    """One `Scan` a direction, with every clip of Core ML's equations."""
    ys, outputs, cells = [], [], []
    for index, part in enumerate(layer.parts):
        y, output, cell = _scan(
            emitter, layer, index, _step(emitter, layer, part, functions[index])
        )
        ys.append(emitter.expand(y, [1]))
        outputs.append(output)
        cells.append(cell)
    return emitter.joined(ys, 1), *(
        emitter.joined([emitter.expand(state, [0]) for state in states], 0)
        for states in (outputs, cells)
    )


def _step(emitter: Emitter, layer: RecurrentLayer, part: Params, functions: list[Function]) -> Step:
    """i = f(Wi x + Ri y' + pi c' + bi), f likewise, z = g(Wz x + Rz y' + bz), c = c' f + i z,
    clipped, o = f(Wo x + Ro y' + po c + bo), y = h(c) o.
    """
    params, options = layer.params, layer.params.params
    units, coupled = params.outputVectorSize, options.coupledInputAndForgetGate
    f, g, h = functions
    stored: dict[str, tuple[str, str, str, str]] = {}
    for gate in ("inputGate", "forgetGate", "outputGate", "blockInput"):
        if gate == "forgetGate" and coupled:
            continue
        matrix = weight(
            emitter, part, f"{gate}WeightMatrix", (units, params.inputVectorSize), axes=(1, 0)
        )
        recursion = weight(emitter, part, f"{gate}RecursionMatrix", (units, units), axes=(1, 0))
        bias = (
            weight(emitter, part, f"{gate}BiasVector", (units,)) if options.hasBiasVectors else ""
        )
        if options.forgetBias and not bias and gate == "forgetGate":
            bias = emitter.number(1)
        peephole = ""
        if options.hasPeepholeVectors and gate != "blockInput":
            peephole = weight(emitter, part, f"{gate}PeepholeVector", (units,))
        stored[gate] = (matrix, recursion, bias, peephole)

    def total(gate: str, x: str, before: str, cell: str) -> str:
        matrix, recursion, bias, peephole = stored[gate]
        y = emitter.node(
            "Add", emitter.node("MatMul", x, matrix), emitter.node("MatMul", before, recursion)
        )
        y = emitter.node("Add", y, bias) if bias else y
        y = emitter.node("Add", y, emitter.node("Mul", cell, peephole)) if peephole else y
        return _bounded(emitter, y)

    def step(x: str, before: str, cell: str) -> tuple[str, str]:
        i = f.apply(emitter, total("inputGate", x, before, cell))
        remaining = (
            emitter.node("Sub", emitter.number(1), i)
            if coupled
            else f.apply(emitter, total("forgetGate", x, before, cell))
        )
        z = g.apply(emitter, total("blockInput", x, before, cell))
        sums = emitter.node("Add", emitter.node("Mul", cell, remaining), emitter.node("Mul", i, z))
        result = _bounded(emitter, sums, options.cellClipThreshold)
        o = f.apply(emitter, total("outputGate", x, before, result))
        return emitter.node("Mul", h.apply(emitter, result), o), result

    return step


def _scan(emitter: Emitter, layer: RecurrentLayer, index: int, step: Step) -> tuple[str, str, str]:
    """The outputs [Seq, Batch, units] in the order of the input, the last output and cell."""
    units, batch = layer.params.outputVectorSize, emitter.extents(layer.x)[1]
    if layer.states:
        first = [emitter.squeeze(state, [0]) for state in layer.states[2 * index : 2 * index + 2]]
    else:
        size = emitter.vector([batch, units])
        first = [emitter.node("ConstantOfShape", size, value=np.zeros(1, np.float32))] * 2
    names = [emitter.fresh(f"{emitter.layer}/{what}") for what in ("before", "cell", "entry")]
    emitter.shapes |= {
        names[0]: (None, units),
        names[1]: (None, units),
        names[2]: (None, layer.params.inputVectorSize),
    }
    with emitter.inside() as nodes:
        result, cell = step(names[2], names[0], names[1])
        again = emitter.node("Identity", result)
    ports = [
        Port(name, shape=(None, n))
        for name, n in zip(names, (units, units, layer.params.inputVectorSize), strict=True)
    ]
    results = [Port(name, shape=(None, units)) for name in (result, cell, again)]
    back = int(layer.reverse[index])
    output, last_cell, y = emitter.nodes(
        "Scan",
        [*first, layer.x],
        3,
        num_scan_inputs=1,
        body=Body(nodes, ports, results),
        scan_input_directions=[back],
        scan_output_directions=[back],
    )
    known = emitter.shape(layer.x)[:2]
    emitter.shapes |= {y: (*known, units), output: (known[1], units), last_cell: (known[1], units)}
    return y, output, last_cell
