"""Find the neural network inside a model, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

Network = nn.NeuralNetwork | nn.NeuralNetworkClassifier | nn.NeuralNetworkRegressor
NETWORK_KINDS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
PIPELINE_KINDS = ("pipeline", "pipelineClassifier", "pipelineRegressor")


def network_of(spec: model_pb2.Model) -> Network | None:
    """The neural network of a model, or None for another kind of model."""
    kind = spec.WhichOneof("Type")
    return getattr(spec, kind) if kind in NETWORK_KINDS else None


def pipeline_of(spec: model_pb2.Model) -> model_pb2.Pipeline | None:
    """The pipeline of a model, or None for another kind of model."""
    kind = spec.WhichOneof("Type")
    if kind not in PIPELINE_KINDS:
        return None
    result = getattr(spec, kind)
    pipeline: model_pb2.Pipeline = result if kind == "pipeline" else result.pipeline
    return pipeline


def class_labels(holder: Message) -> list[str] | list[int]:
    """The labels of a classifier's parameters."""
    field = holder.WhichOneof("ClassLabels")
    return list(getattr(holder, field).vector) if field else []


def models_in(spec: model_pb2.Model) -> Iterator[model_pb2.Model]:
    """The model itself and, for a pipeline, every model in it."""
    yield spec
    pipeline = pipeline_of(spec)
    for model in pipeline.models if pipeline is not None else ():
        yield from models_in(model)


def layers_of(network: Network) -> Iterator[nn.NeuralNetworkLayer]:
    """Every layer; those of a branch or loop follow the layer that holds them."""
    for layer in network.layers:
        yield layer
        for inner in subnetworks(layer):
            yield from layers_of(inner)


def subnetworks(layer: nn.NeuralNetworkLayer) -> list[nn.NeuralNetwork]:
    """The networks inside a branch or a loop."""
    kind = layer.WhichOneof("layer")
    if kind == "branch":
        return [layer.branch.ifBranch, layer.branch.elseBranch]
    if kind == "loop":
        return [layer.loop.conditionNetwork, layer.loop.bodyNetwork]
    return []


def touched(layer: nn.NeuralNetworkLayer) -> tuple[set[str], set[str]]:
    """The blobs that a layer, or a network inside it, reads, and those that it writes."""
    reads, writes = set(layer.input), set(layer.output)
    if layer.WhichOneof("layer") == "loop" and layer.loop.conditionVar:
        reads.add(layer.loop.conditionVar)
    for network in subnetworks(layer):
        for inner in network.layers:
            more_reads, more_writes = touched(inner)
            reads |= more_reads
            writes |= more_writes
    return reads, writes


def rename_blob(network: Network, old: str, new: str) -> None:
    """Rename a blob where layers read, write or test it, in branches and loops too."""
    for layer in layers_of(network):
        if layer.HasField("loop") and layer.loop.conditionVar == old:
            layer.loop.conditionVar = new
        for names in (layer.input, layer.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


Loss = nn.CategoricalCrossEntropyLossLayer | nn.MeanSquaredErrorLossLayer


def losses_of(network: Network) -> list[Loss]:
    """The loss layers of training on a device; the `input` of each is a blob of the network."""
    results = []
    for layer in network.updateParams.lossLayers:
        kind = layer.WhichOneof("LossLayerType")
        if kind is not None:
            results.append(getattr(layer, kind))
    return results
