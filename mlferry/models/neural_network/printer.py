"""`print_network_spec`: print a network as a list or as a program."""

from __future__ import annotations

from mlferry.models.neural_network.summaries import parameters_of, write
from mlferry.spec import features, networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

__all__ = ["print_network_spec"]


def print_network_spec(
    mlmodel_spec: model_pb2.Model, interface_only: bool = False, style: str = ""
) -> None:
    """Write the inputs, outputs and layers of a model to the standard output.

    Args:
        mlmodel_spec: the `Model` message.
        interface_only: whether to leave out layers.
        style: "coding" writes one line per layer, like a program.
    """
    for title, described in (
        ("Inputs", mlmodel_spec.description.input),
        ("Outputs", mlmodel_spec.description.output),
    ):
        write(f"{title}:")
        for feature in described:
            write(f"  {feature.name}: {features.show(feature.type)}")
    if interface_only:
        return
    network = networks.network_of(mlmodel_spec)
    if network is None:
        write(f"\nNo layers: a model of the kind {mlmodel_spec.WhichOneof('Type')}")
    elif style == "coding":
        arguments = ", ".join(feature.name for feature in mlmodel_spec.description.input)
        write(f"\ndef model({arguments}):")
        _write_program(network, depth=1)
        outputs = ", ".join(feature.name for feature in mlmodel_spec.description.output)
        write(f"    return {outputs}")
    else:
        write("\nLayers:")
        _write_list(network)


def _write_list(network: networks.Network) -> None:
    for index, layer in enumerate(network.layers):
        write(f"[{index}] ({layer.WhichOneof('layer')}) {layer.name}")
        write(f"  Input blobs: {list(layer.input)}")
        write(f"  Output blobs: {list(layer.output)}")
        for name, value in parameters_of(layer):
            write(f"    {name} = {value}")


def _write_program(network: networks.Network, depth: int) -> None:
    indent = "    " * depth
    for layer in network.layers:
        kind = layer.WhichOneof("layer")
        target = f"{', '.join(layer.output)} = " if layer.output else ""
        write(f"{indent}{target}{kind}({', '.join(layer.input)})")
        for title, inner in _inner(layer):
            if inner.layers:
                write(f"{indent}{title}:")
                _write_program(inner, depth + 1)


def _inner(layer: nn.NeuralNetworkLayer) -> list[tuple[str, nn.NeuralNetwork]]:
    titles = {"branch": ("if", "else"), "loop": ("while", "do")}
    kind = layer.WhichOneof("layer") or ""
    return list(zip(titles.get(kind, ()), networks.subnetworks(layer), strict=True))
