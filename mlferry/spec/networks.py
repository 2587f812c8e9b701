"""Find the neural network inside a model, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
    found = getattr(spec, kind)
    pipeline: model_pb2.Pipeline = found if kind == "pipeline" else found.pipeline
    return pipeline


def models_in(spec: model_pb2.Model) -> Iterator[model_pb2.Model]:
    """The model itself and, for a pipeline, every model in it."""
    yield spec
    pipeline = pipeline_of(spec)
    for model in pipeline.models if pipeline is not None else ():
        yield from models_in(model)


def layers_of(network: Network) -> Iterator[nn.NeuralNetworkLayer]:
    """Every layer, with those of branches and loops after the layer that holds them."""
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
    """The blobs that a layer, or a network inside it, reads, and those that it makes."""
    reads, writes = set(layer.input), set(layer.output)
    if layer.WhichOneof("layer") == "loop" and layer.loop.conditionVar:
        reads.add(layer.loop.conditionVar)
    for network in subnetworks(layer):
        for inner in network.layers:
            more_reads, more_writes = touched(inner)
            reads |= more_reads
            writes |= more_writes
    return reads, writes


Loss = nn.CategoricalCrossEntropyLossLayer | nn.MeanSquaredErrorLossLayer


def losses_of(network: Network) -> list[Loss]:
    """What training on a device compares: the `input` of each is a blob of the network."""
    found = []
    for layer in network.updateParams.lossLayers:
        kind = layer.WhichOneof("LossLayerType")
        if kind is not None:
            found.append(getattr(layer, kind))
    return found


_VERSION_BY_NUMBER = ((500, 1), (501, 2), (1450, 4))


def layer_version(layer: nn.NeuralNetworkLayer) -> int:
    """The specification version that brought the kind of a layer."""
    kind = layer.WhichOneof("layer")
    if kind is None:
        return 1
    if kind in ("resizeBilinear", "cropResize"):
        return 3
    number = nn.NeuralNetworkLayer.DESCRIPTOR.fields_by_name[kind].number
    return next((version for limit, version in _VERSION_BY_NUMBER if number < limit), 5)


def uses_rank5(network: Network) -> bool:
    """Whether blobs are [Seq, Batch, C, H, W], as in the classic mapping.

    A network with a layer or feature of version 4 or later, or with any mapping set, is not.
    """
    return (
        network.arrayInputShapeMapping == nn.RANK5_ARRAY_MAPPING
        and network.imageInputShapeMapping == nn.RANK5_IMAGE_MAPPING
        and not any(needs_exact_mapping(layer) for layer in layers_of(network))
    )


_NEWER_FEATURES: dict[str, Callable[[nn.NeuralNetworkLayer], bool]] = {
    "convolution": lambda layer: len(layer.input) > 1,
    "innerProduct": lambda layer: layer.innerProduct.int8DynamicQuantize,
    "upsample": lambda layer: bool(
        layer.upsample.linearUpsampleMode or layer.upsample.fractionalScalingFactor
    ),
    "reorganizeData": lambda layer: layer.reorganizeData.mode == 2,
}


def needs_exact_mapping(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer, or a feature of it, is of version 4 or later: not classic."""
    if layer_version(layer) >= 4:
        return True
    newer = _NEWER_FEATURES.get(layer.WhichOneof("layer") or "")
    return newer is not None and newer(layer)
