"""What a device can train, and the marks of it in a network."""

from __future__ import annotations

from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn

UPDATABLE_LAYERS = ("convolution", "innerProduct")


def mark_updatable(layer: nn.NeuralNetworkLayer) -> None:
    """Mark a layer and its weights as those that are trained."""
    layer.isUpdatable = True
    for weight in weights.iter_weights(layer):
        weight.message.isUpdatable = True
