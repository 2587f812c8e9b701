"""Rules about the functions in recurrent layers, and about their directions."""

from __future__ import annotations

import math
from typing import Any

from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.validate.rules import Problems, error, layer_rule, warning

_RECURRENT = ("linear", "sigmoid", "tanh", "ReLU", "scaledTanh", "sigmoidHard")
_CONSTANTS = {"scaledTanh": (1.7159, 2 / 3), "sigmoidHard": (0.2, 0.5)}
ACTIVATIONS: dict[str, dict[str, int]] = {
    "simpleRecurrent": {"activation": 1},
    "gru": {"activations": 2},
    "uniDirectionalLSTM": {"activations": 3},
    "biDirectionalLSTM": {"activationsForwardLSTM": 3, "activationsBackwardLSTM": 3},
}


@layer_rule(*ACTIVATIONS)
def recurrent_activations(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
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
    elif kind in _CONSTANTS:
        message, wanted = getattr(function, kind), _CONSTANTS[kind]
        found = (message.alpha, message.beta)
        fits = all(math.isclose(a, b, abs_tol=0.01) for a, b in zip(found, wanted, strict=True))
        if any(found) and not fits:  # coremltools' converters leave both at 0
            yield warning(
                f"{field} is {kind} with alpha {found[0]:g} and beta {found[1]:g}; in recurrent "
                f"layers these are {wanted[0]:g} and {wanted[1]:g}"
            )


@layer_rule("biDirectionalLSTM")
def both_directions(layer: nn.NeuralNetworkLayer, params: Any) -> Problems:
    """Weights for both directions, and the same functions."""
    if len(params.weightParams) != 2:
        yield error(
            f"weightParams has {len(params.weightParams)} entries; 2 are needed: forward, backward"
        )
    if list(params.activationsForwardLSTM) != list(params.activationsBackwardLSTM):
        yield warning("activationsForwardLSTM and activationsBackwardLSTM must be the same")
