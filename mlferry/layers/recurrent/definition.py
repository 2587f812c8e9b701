"""Recurrent layers: [Seq, Batch, C, 1, 1] in; the output and the last states out."""

from __future__ import annotations

import math

from google.protobuf.message import Message

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    StoredWeight,
    StoredWeights,
    layer_kind,
    layer_rule,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics.gates import CELL_CLIP, FIXED
from mlferry.numerics.shapes import Shape, product, show
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import neural_network_pb2 as nn

# Their states may be left out of the outputs.
RECURRENT = ("simpleRecurrent", "gru", "uniDirectionalLSTM", "biDirectionalLSTM")


def recurrent(
    params: Params, shape: Shape, states: tuple[Shape, ...], sequence: bool, names: int
) -> list[Shape]:
    """The output and `names` states; initial states are given all or not at all."""
    if len(shape) != 5:
        raise SpecError(f"input of shape {show(shape)} needs 5 axes: Seq, Batch, C, 1, 1")
    size = product(shape[2:])
    if size not in (params.inputVectorSize, None):
        raise SpecError(
            f"input {show(shape)} has vectors of {size}, the layer takes {params.inputVectorSize}"
        )
    if len(states) not in (0, names):
        raise SpecError(f"{len(states)} initial states; it takes none or {names}")
    units = params.outputVectorSize
    for state in states:
        if product(state[-3:]) not in (units, None):
            raise SpecError(f"an initial state of shape {show(state)}; {units} units are needed")
    batch = shape[1]
    steps = shape[0] if sequence else 1
    return [(steps, batch, max(1, names // 2) * units, 1, 1), *[(1, batch, units, 1, 1)] * names]


_SIZES = ("inputVectorSize", "outputVectorSize")
_CLIP = {"params.cellClipThreshold": CELL_CLIP}


@layer_kind("simpleRecurrent", inputs=2, outputs=2, evaluated=(1, 2), positive=_SIZES)
@layer_kind("gru", inputs=(1, 2), outputs=2, positive=_SIZES)
def one_state(params: Params, shape: Shape, *states: Shape) -> list[Shape]:
    return recurrent(params, shape, states, params.sequenceOutput, 1)


@layer_kind("uniDirectionalLSTM", inputs=(1, 3), outputs=3, defaults=_CLIP, positive=_SIZES)
@layer_kind("biDirectionalLSTM", inputs=(1, 5), outputs=5, defaults=_CLIP, positive=_SIZES)
def lstm(params: Params, shape: Shape, *states: Shape) -> list[Shape]:
    names = 4 if params.kind == "biDirectionalLSTM" else 2
    return recurrent(params, shape, states, params.params.sequenceOutput, names)


# ---- rules and stored weights ------------------------------------------------------------------


_RECURRENT = ("linear", "sigmoid", "tanh", "ReLU", "scaledTanh", "sigmoidHard")


ACTIVATIONS: dict[str, dict[str, int]] = {
    "simpleRecurrent": {"activation": 1},
    "gru": {"activations": 2},
    "uniDirectionalLSTM": {"activations": 3},
    "biDirectionalLSTM": {"activationsForwardLSTM": 3, "activationsBackwardLSTM": 3},
}


@layer_rule(*ACTIVATIONS)
def recurrent_activations(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """As many functions as gates, of the kinds that devices have."""
    for field, count in ACTIVATIONS[layer.WhichOneof("layer") or ""].items():
        value = getattr(params, field)
        functions = [value] if isinstance(value, nn.ActivationParams) else list(value)
        if len(functions) != count:
            yield error(f"{field} has {len(functions)} functions; {count} are needed")
        for index, function in enumerate(functions):
            yield from _recurrent_activation(f"{field}[{index}]", function)


def _recurrent_activation(field: str, function: nn.ActivationParams) -> Problems:
    kind = function.WhichOneof("NonlinearityType")
    allowed = f"recurrent layers have {', '.join(_RECURRENT)}"
    if kind is None:
        yield error(f"{field} is not set; {allowed}")
    elif kind not in _RECURRENT:
        yield warning(f"{field} is {kind}; {allowed}")
    elif kind in FIXED:
        message, fixed = getattr(function, kind), FIXED[kind]
        results = (message.alpha, message.beta)
        fits = all(math.isclose(a, b, abs_tol=0.01) for a, b in zip(results, fixed, strict=True))
        if any(results) and not fits:  # coremltools' converters leave both at 0
            yield warning(
                f"{field} is {kind} with alpha {results[0]:g} and beta {results[1]:g}; in "
                f"recurrent layers these are {fixed[0]:g} and {fixed[1]:g}"
            )


@layer_rule("biDirectionalLSTM")
def both_directions(
    layer: nn.NeuralNetworkLayer, params: nn.BiDirectionalLSTMLayerParams
) -> Problems:
    """Weights for both directions, and the same functions."""
    if len(params.weightParams) != 2:
        yield error(
            f"weightParams has {len(params.weightParams)} entries; 2 are needed: forward, backward"
        )
    if list(params.activationsForwardLSTM) != list(params.activationsBackwardLSTM):
        yield warning("activationsForwardLSTM and activationsBackwardLSTM must be the same")


@stored_weights("simpleRecurrent")
def weights_of_simple_recurrent(
    layer: nn.NeuralNetworkLayer, params: nn.SimpleRecurrentLayerParams
) -> StoredWeights:
    out = params.outputVectorSize
    yield StoredWeight(
        "weightMatrix", params.weightMatrix, (out, params.inputVectorSize), scales=out
    )
    yield StoredWeight("recursionMatrix", params.recursionMatrix, (out, out), scales=out)
    yield StoredWeight(
        "biasVector", params.biasVector, (out,), "hasBiasVector", params.hasBiasVector
    )


def _gates(
    params: nn.GRULayerParams | nn.LSTMWeightParams,
    prefix: str,
    gates: tuple[str, ...],
    sizes: tuple[int, int],
    bias: bool,
) -> StoredWeights:
    out, width = sizes
    for gate in gates:
        for name, shape in (("WeightMatrix", (out, width)), ("RecursionMatrix", (out, out))):
            field = f"{gate}{name}"
            yield StoredWeight(prefix + field, getattr(params, field), shape, scales=out)
        field = f"{gate}BiasVector"
        yield StoredWeight(prefix + field, getattr(params, field), (out,), "hasBiasVectors", bias)


@stored_weights("gru")
def weights_of_gru(layer: nn.NeuralNetworkLayer, params: nn.GRULayerParams) -> StoredWeights:
    gates = ("updateGate", "resetGate", "outputGate")
    yield from _gates(
        params, "", gates, (params.outputVectorSize, params.inputVectorSize), params.hasBiasVectors
    )


@stored_weights("uniDirectionalLSTM", "biDirectionalLSTM")
def weights_of_lstm(
    layer: nn.NeuralNetworkLayer,
    params: nn.BiDirectionalLSTMLayerParams | nn.UniDirectionalLSTMLayerParams,
) -> StoredWeights:
    gates = ("inputGate", "forgetGate", "blockInput", "outputGate")
    sizes, options = (params.outputVectorSize, params.inputVectorSize), params.params
    stored: dict[str, nn.LSTMWeightParams] = (
        {"weightParams.": params.weightParams}
        if isinstance(params, nn.UniDirectionalLSTMLayerParams)
        else {f"weightParams[{index}].": each for index, each in enumerate(params.weightParams)}
    )
    for prefix, message in stored.items():
        yield from _gates(message, prefix, gates, sizes, options.hasBiasVectors)
        for gate in ("inputGate", "forgetGate", "outputGate"):
            field, used = f"{gate}PeepholeVector", options.hasPeepholeVectors
            vector = getattr(message, field)
            yield StoredWeight(prefix + field, vector, sizes[:1], "hasPeepholeVectors", used)
