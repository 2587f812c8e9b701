"""What a device can train, and the marks of it in a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn

UPDATABLE_LAYERS = ("convolution", "innerProduct")


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Attributes:
        loss: "cross entropy", "squared error", or None where there is none.
        optimizer: "SGD", "Adam" or None, likewise.
        numbers: of the optimizer: ``lr``, ``momentum``, ``beta1``, ``beta2``, ``eps``.
    """

    loss: str | None = None
    optimizer: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def mark_updatable(layer: nn.NeuralNetworkLayer) -> None:
    """Mark a layer and its weights as those that are trained."""
    layer.isUpdatable = True
    for weight in weights.iter_weights(layer):
        weight.message.isUpdatable = True


_WITH_GRADIENT = ("convolution", "innerProduct", "flatten", "pooling", "batchnorm", "softmax")
_ACTIVATIONS_WITH_GRADIENT = ("ReLU", "sigmoid", "tanh")


def carries_gradient(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a device can train layers before this one."""
    kind = layer.WhichOneof("layer")
    if kind == "activation":
        return layer.activation.WhichOneof("NonlinearityType") in _ACTIVATIONS_WITH_GRADIENT
    return kind in _WITH_GRADIENT
