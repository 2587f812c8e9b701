"""What an updatable model trains with on a device, kept by the tools that make other models."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.errors import SpecError
from mlferry.models.model import MLModel
from mlferry.spec import networks, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2


def without_training(model: MLModel) -> MLModel:
    """A copy of an updatable model that cannot be trained on a device any more.

    Losses, optimizer, training inputs and the marks of updatable layers and weights go.
    """
    spec = model.get_spec()
    for each in networks.models_in(spec):
        each.isUpdatable = False
        del each.description.trainingInput[:]
        network = networks.network_of(each)
        if network is not None:
            _clear(network)
    return model.with_spec(spec)


def _clear(network: networks.Network) -> None:
    network.ClearField("updateParams")
    for layer in networks.layers_of(network):
        layer.isUpdatable = False
    for weight in weights.iter_weights(network):
        weight.message.isUpdatable = False


def set_type(spec: model_pb2.Model, name: str, made: ft.FeatureType) -> None:
    """Give the training input of this name a type, where there is one."""
    for feature in spec.description.trainingInput:
        if feature.name == name:
            feature.type.CopyFrom(made)


def label_target(spec: model_pb2.Model, probabilities: str) -> None:
    """Let a new classifier train on labels, as Core ML wants it, where it compared numbers.

    Args:
        spec: the classifier, which was a network with a loss on its probabilities.
        probabilities: their blob.
    """
    description = spec.description
    label = next(f for f in description.output if f.name == description.predictedFeatureName)
    targets = {
        loss.categoricalCrossEntropyLossLayer.target
        for loss in spec.neuralNetworkClassifier.updateParams.lossLayers
        if loss.categoricalCrossEntropyLossLayer.input == probabilities
    }
    for feature in description.trainingInput:
        if feature.name in targets:
            feature.CopyFrom(label)


def carry_to_part(spec: model_pb2.Model, part: model_pb2.Model) -> None:
    """Let a part of a network train as the whole did.

    Args:
        spec: the whole.
        part: described, with its layers.

    Raises:
        SpecError: a loss reads a blob that the part does not make.
    """
    whole, network = networks.network_of(spec), networks.network_of(part)
    assert whole is not None
    assert network is not None
    if not spec.isUpdatable:
        return
    made = {blob for layer in network.layers for blob in networks.touched(layer)[1]}
    missing = [loss.input for loss in networks.losses_of(whole) if loss.input not in made]
    if missing or not network.layers or not any(layer.isUpdatable for layer in network.layers):
        lacks = f"the blob {missing[0]!r}, which its loss reads" if missing else "updatable layers"
        raise SpecError(
            f"the model is updatable, and the part lacks {lacks}: add it to the outputs, or "
            "extract from mlferry.models.utils.without_training(model)"
        )
    part.isUpdatable = True
    network.updateParams.CopyFrom(whole.updateParams)
    part.description.trainingInput.extend(part.description.input)
    part.description.trainingInput.extend(_targets(spec))


def carry_to_pipeline(pipeline: model_pb2.Model, last: model_pb2.Model) -> None:
    """Let a pipeline train its last model, where that one is updatable."""
    if last.isUpdatable:
        pipeline.isUpdatable = True
        pipeline.description.trainingInput.extend(pipeline.description.input)
        pipeline.description.trainingInput.extend(_targets(last))


def _targets(spec: model_pb2.Model) -> Sequence[model_pb2.FeatureDescription]:
    """The training inputs that are not inputs: what results are compared with."""
    inputs = {feature.name for feature in spec.description.input}
    return [f for f in spec.description.trainingInput if f.name not in inputs]
