"""Gradients of an output of a network with respect to its inputs, or to a blob inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError, UnsupportedModelError
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import CustomClasses
from mlferry.runtime.evaluators.network import NetworkEvaluator, probability_blob
from mlferry.runtime.images import color_layout
from mlferry.spec import networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn
from mlferry.training.tape import Tape

Output = str | tuple[str, int | str | tuple[int, ...]]
Array = NDArray[np.float32]


def tape_for(spec: model_pb2.Model, evaluate: object, classes: CustomClasses | None) -> Tape:
    """A tape that runs a network and records what gradients need.

    Raises:
        UnsupportedModelError: the model is not a neural network.
    """
    network = networks.network_of(spec)
    if network is None or not isinstance(evaluate, NetworkEvaluator):
        kind = spec.WhichOneof("Type")
        inside = (
            ""
            if networks.pipeline_of(spec) is None
            else (": take one of its models, mlferry.MLModel(model.spec.pipeline.models[-1])")
        )
        hint = (
            ': mlferry.convert(source, convert_to="neuralnetwork") makes one'
            if kind == "mlProgram"
            else inside
        )
        raise UnsupportedModelError(
            f"gradients need a neural network; this is a model of kind {kind!r}{hint}"
        )
    return Tape(network, classes, planned=False)


def gradients(
    spec: model_pb2.Model,
    evaluate: NetworkEvaluator,
    tape: Tape,
    data: Mapping[str, Any],
    output: Output,
    blobs: Sequence[str] | None,
) -> dict[str, Array]:
    """See `MLModel.gradient`."""
    name, place = output if isinstance(output, tuple) else (output, None)
    described = {feature.name: feature.type for feature in spec.description.input}
    inputs = evaluate.blobs(data)
    blob = _blob_of(spec, name, tape)
    sources = list(described) if blobs is None else list(blobs)
    outputs, recording = tape.record(inputs, [blob], sources)
    seed = _seed(spec, name, outputs[blob], place)
    slopes = tape.back(recording, {blob: seed}).blobs
    result = {}
    for source in sources:
        shape = inputs[source].shape if source in inputs else None
        gradient = slopes.get(source)
        if gradient is None:
            if shape is None:
                shape = tape.record(inputs, [source])[0][source].shape
            gradient = np.zeros(shape, np.float32)
        gradient = np.array(gradient, np.float32)
        if source in described and source in data:
            gradient = _as_given(spec, source, described[source], gradient, np.shape(data[source]))
        result[source] = gradient
    return result


def _blob_of(spec: model_pb2.Model, name: str, tape: Tape) -> str:
    """The blob of an output; of a classifier's label and probabilities, the probabilities."""
    network = networks.network_of(spec)
    description = spec.description
    if isinstance(network, nn.NeuralNetworkClassifier) and name in (
        description.predictedFeatureName,
        description.predictedProbabilitiesName,
    ):
        return probability_blob(network)
    if name not in tape.blobs:
        known = [*(feature.name for feature in description.output), *sorted(tape.blobs)]
        raise PredictionError(
            f"the model has no output or blob {name!r}.{did_you_mean(name, known)}"
        )
    return name


def _seed(spec: model_pb2.Model, name: str, output: Array, place: object) -> Array:
    """The output's gradient: 1 at the value to differentiate, or everywhere."""
    if place is None:
        return np.ones_like(output)
    seed = np.zeros_like(output)
    network = networks.network_of(spec)
    description = spec.description
    of_labels = (description.predictedFeatureName, description.predictedProbabilitiesName)
    if isinstance(network, nn.NeuralNetworkClassifier) and name in of_labels:
        labels: Sequence[Any] = networks.class_labels(network)
        if place not in labels:
            close = did_you_mean(str(place), [str(label) for label in labels])
            raise PredictionError(
                f"{place!r:.80} is none of the {len(labels)} labels of {name!r}.{close}"
            )
        place = labels.index(place)
    try:
        if isinstance(place, tuple):
            seed[place] = 1
        elif isinstance(place, int | np.integer):
            seed.reshape(-1)[int(place)] = 1
        else:
            raise PredictionError(
                f"a value of {name!r} is given by its index, an integer or one per axis, not by "
                f"{place!r:.80}"
            )
    except IndexError:
        raise PredictionError(
            f"there is no value {place!r} in {name!r}, which has the shape {output.shape}"
        ) from None
    return seed


def _as_given(
    spec: model_pb2.Model, name: str, kind: ft.FeatureType, gradient: Array, shape: Sequence[int]
) -> Array:
    """The gradient of an input in the shape of the input."""
    if kind.WhichOneof("Type") != "imageType":
        return gradient.reshape(tuple(shape)) if np.prod(shape) == gradient.size else gradient
    network = networks.network_of(spec)
    assert network is not None
    layout = color_layout(kind.imageType)
    for step in network.preprocessing:
        if step.featureName in ("", name) and step.WhichOneof("preprocessor") == "scaler":
            gradient = gradient * np.float32(step.scaler.channelScale)
    *_, channels, height, width = gradient.shape
    pixels = np.moveaxis(gradient.reshape(channels, height, width), 0, -1)
    if channels == 1:
        return pixels[..., 0]
    return pixels[..., ::-1] if layout == "BGR" else pixels
