"""What a device can train, and how a network marks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlferry.layers.definitions import DEFINITIONS, definition_of
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Attributes:
        loss: "cross entropy", "squared error", or None if there is none.
        optimizer: "SGD", "Adam" or None, likewise.
        numbers: of the optimizer: ``lr``, ``momentum``, ``beta1``, ``beta2``, ``eps``.
    """

    loss: str | None = None
    optimizer: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def mark_updatable(layer: nn.NeuralNetworkLayer) -> None:
    """Mark a layer and its weights as trainable."""
    layer.isUpdatable = True
    for weight in weights.iter_weights(layer):
        weight.message.isUpdatable = True


def updatable_kinds() -> list[str]:
    """The layer kinds that a device can train."""
    return [kind for kind in DEFINITIONS if definition_of(kind).updatable]


def carries_gradient(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a device can train layers before this one."""
    entry = DEFINITIONS.find(layer.WhichOneof("layer") or "")
    return entry is not None and entry.value.gradient(layer)
