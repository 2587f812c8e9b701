"""The training parameters of updatable models, which tools that make new models carry over."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.errors import SpecError, UnsupportedModelError, ValidationError
from mlferry.layers.training import TrainingOptions
from mlferry.models.model import MLModel
from mlferry.models.neural_network.builder import NeuralNetworkBuilder
from mlferry.models.neural_network.trainable import make_trainable
from mlferry.models.neural_network.update_optimizer_utils import AdamParams, SgdParams
from mlferry.models.problems import validate
from mlferry.spec import networks, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2


def with_training(
    model: MLModel,
    layers: Sequence[str],
    optimizer: SgdParams | AdamParams,
    *,
    loss: str = "cross entropy",
    epochs: Sequence[int] = (10,),
) -> MLModel:
    """Copy a network as one that a device, and `MLModel.update`, can train.

    Args:
        model: a neural network in exact array mapping.
        layers: names of convolutions and inner products; see `NeuralNetworkBuilder.make_updatable`.
        optimizer: with its numbers, and the values that an app may choose.
        loss: "cross entropy", of a softmax: a classifier trains on labels, another network on
            indices, ``<output>_true``. Or "squared error", of the first output.
        epochs: what an app may choose from; the first is the default.

    Raises:
        SpecError: there is no such layer, loss or number, or a device could not train it.
        UnsupportedModelError: the model is not a neural network.
    """
    spec = model.get_spec()
    if networks.network_of(spec) is None:
        raise UnsupportedModelError(
            f"a device trains neural networks, not a model of kind {spec.WhichOneof('Type')!r}"
        )
    if loss not in ("cross entropy", "squared error"):
        raise SpecError(f"no loss {loss!r}: 'cross entropy' and 'squared error' are known")
    make_trainable(spec, layers, TrainingOptions(loss))
    builder = NeuralNetworkBuilder(spec=spec)
    if isinstance(optimizer, SgdParams):
        builder.set_sgd_optimizer(optimizer)
    else:
        builder.set_adam_optimizer(optimizer)
    builder.set_epochs(epochs[0], list(epochs))
    changed = model.with_spec(spec)
    problems = validate(changed.spec)
    severe = [problem for problem in problems if problem.severity != "note"]
    if severe:
        raise ValidationError("a device could not train the model:", severe)
    return changed


def without_training(model: MLModel) -> MLModel:
    """Copy an updatable model as one that a device cannot train.

    Losses, optimizer, training inputs and the marks of updatable layers and weights are removed.
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


def set_type(spec: model_pb2.Model, name: str, new_type: ft.FeatureType) -> None:
    """Set the type of the training input of this name, if there is one."""
    for feature in spec.description.trainingInput:
        if feature.name == name:
            feature.type.CopyFrom(new_type)


def label_target(spec: model_pb2.Model, probabilities: str) -> None:
    """Make a new classifier train on labels, as Core ML requires, instead of numbers.

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
    """Carry the training parameters over to a part of a network.

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
    outputs = {blob for layer in network.layers for blob in networks.touched(layer)[1]}
    missing = [loss.input for loss in networks.losses_of(whole) if loss.input not in outputs]
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
    """Make a pipeline updatable if its last model is."""
    if last.isUpdatable:
        pipeline.isUpdatable = True
        pipeline.description.trainingInput.extend(pipeline.description.input)
        pipeline.description.trainingInput.extend(_targets(last))


def _targets(spec: model_pb2.Model) -> Sequence[model_pb2.FeatureDescription]:
    """The training inputs that are not inputs: the targets."""
    inputs = {feature.name for feature in spec.description.input}
    return [f for f in spec.description.trainingInput if f.name not in inputs]
