"""Merges consecutive transposes, or removes them if they undo each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from mlferry.layers.builder import Builder
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn


def merge(builder: Builder, outputs: Collection[str]) -> None:
    """Look through chains of transposes; `prune` removes those that nothing reads any more.

    Args:
        outputs: blobs that are outputs of the model, which keep their makers.
    """
    every = list(networks.layers_of(builder.network))
    written = Counter(name for layer in every for name in layer.output)
    makers: dict[str, nn.NeuralNetworkLayer] = {}
    same: dict[str, str] = {}
    for layer in builder.network.layers:
        if layer.WhichOneof("layer") != "transpose" or written[layer.output[0]] != 1:
            continue
        source = same.get(layer.input[0], layer.input[0])
        before = makers.get(source)
        axes = list(layer.transpose.axes)
        if before is not None and written[before.input[0]] <= 1:
            source = before.input[0]
            axes = [before.transpose.axes[axis] for axis in axes]
        output = layer.output[0]
        if axes == sorted(axes) and output not in outputs:
            same[output] = source
            continue
        layer.input[0] = source
        layer.transpose.axes[:] = axes
        makers[output] = layer
    if same:
        for layer in every:
            for index, name in enumerate(layer.input):
                if name in same:
                    layer.input[index] = same[name]
