"""`MLModel`: a Core ML model that loads, predicts, shows itself and saves."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from mlferry.custom import CustomLayer
from mlferry.errors import ModelFileError, PredictionError, UnsupportedModelError, ValidationError
from mlferry.models import inspect
from mlferry.runtime import images, inputs
from mlferry.runtime.session import Session
from mlferry.spec import features, io, networks, validate
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn


class FeatureDescriptions(MutableMapping[str, str]):
    """The description of each input or output, by name; items can be set."""

    def __init__(self, described: Any) -> None:
        self._described = described

    def _find(self, name: str) -> Any:
        for feature in self._described:
            if feature.name == name:
                return feature
        raise KeyError(f"No feature with name {name}.")

    def __getitem__(self, name: str) -> str:
        return str(self._find(name).shortDescription)

    def __setitem__(self, name: str, text: str) -> None:
        self._find(name).shortDescription = text

    def __delitem__(self, name: str) -> None:
        self._find(name).shortDescription = ""

    def __iter__(self) -> Iterator[str]:
        return iter([feature.name for feature in self._described])

    def __len__(self) -> int:
        return len(self._described)


class MLModel:
    """A Core ML model.

    Args:
        model: path of a `.mlmodel` file, its bytes, or a `Model` message (mlferry's or
            coremltools').
        custom_layers: classes of custom layers by class name, for this model only; they come
            before those of `register_custom_layer`.

    Raises:
        ModelFileError: the file is missing, cut off, or no Core ML model.
        ValidationError: the model breaks rules without which its numbers are undefined.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | model_pb2.Model,
        *,
        custom_layers: Mapping[str, type[CustomLayer]] | None = None,
    ) -> None:
        self._spec = _spec_of(model)
        self._custom_layers = custom_layers
        self._session: Session | None = None
        severe = [p for p in validate.validate(self._spec) if p.severity == "error"]
        if severe:
            raise ValidationError("the model breaks the format's rules:", severe)

    # ---- description -------------------------------------------------------------------

    @property
    def short_description(self) -> str:
        """What the model does, for whoever opens it."""
        return self._spec.description.metadata.shortDescription

    @short_description.setter
    def short_description(self, text: str) -> None:
        self._spec.description.metadata.shortDescription = text

    @property
    def author(self) -> str:
        """Who made the model."""
        return self._spec.description.metadata.author

    @author.setter
    def author(self, text: str) -> None:
        self._spec.description.metadata.author = text

    @property
    def license(self) -> str:
        """The model's licence."""
        return self._spec.description.metadata.license

    @license.setter
    def license(self, text: str) -> None:
        self._spec.description.metadata.license = text

    @property
    def version(self) -> str:
        """The model's own version."""
        return self._spec.description.metadata.versionString

    @version.setter
    def version(self, text: str) -> None:
        self._spec.description.metadata.versionString = text

    @property
    def user_defined_metadata(self) -> MutableMapping[str, str]:
        """Further metadata, as a mapping that can be changed."""
        return self._spec.description.metadata.userDefined

    @property
    def input_description(self) -> FeatureDescriptions:
        """Descriptions of the inputs by name."""
        return FeatureDescriptions(self._spec.description.input)

    @property
    def output_description(self) -> FeatureDescriptions:
        """Descriptions of the outputs by name."""
        return FeatureDescriptions(self._spec.description.output)

    def get_spec(self) -> model_pb2.Model:
        """A copy of the `Model` message."""
        copy = model_pb2.Model()
        copy.CopyFrom(self._spec)
        return copy

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a `.mlmodel` file, whole or not at all, and return its path.

        Raises:
            ModelFileError: another suffix, or a folder that cannot be written.
            ValidationError: the model has problems; nothing is written.
        """
        problems = validate.validate(self._spec)
        severe = [p for p in problems if p.severity != "note"]
        if severe:
            raise ValidationError(f"{path} is not written: the model has problems:", severe)
        return io.save_spec(self._spec, path)

    def __repr__(self) -> str:
        return inspect.summary(self._spec)

    # ---- prediction --------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The plan that evaluates the network, made at the first use.

        Raises:
            UnsupportedModelError: the model is no neural network.
            MissingCustomLayerError: custom classes are missing.
        """
        if self._session is None:
            self._session = Session(self._network(), self._custom_layers)
        return self._session

    def _network(self) -> networks.Network:
        network = networks.network_of(self._spec)
        if network is None:
            kind = self._spec.WhichOneof("Type")
            raise UnsupportedModelError(
                f"a model of kind {kind!r} loads and saves here but cannot predict yet; "
                f"these can: {', '.join(networks.NETWORK_KINDS)}"
            )
        return network

    def predict(
        self, data: Mapping[str, Any] | list[Mapping[str, Any]]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Evaluate the model.

        Args:
            data: a dict from input names to values, or a list of such dicts. Multi-arrays are
                arrays in the described shape; images are PIL images, or arrays of 0 to 255
                of shape [H, W, 3] (R, G, B) or [H, W].

        Returns:
            The outputs by name, in the order of the description; a list for a list. Images
            come as uint8 arrays, class probabilities as a dict from labels.

        Raises:
            PredictionError: a name, shape or value does not fit.
            MissingCustomLayerError: custom classes are missing.
        """
        if isinstance(data, list):
            return [self._predict(sample) for sample in data]
        return self._predict(data)

    def _predict(self, data: Mapping[str, Any]) -> dict[str, Any]:
        description = self._spec.description
        network, session = self._network(), self.session
        inputs.check_names(data, description)
        blobs = {
            feature.name: inputs.to_blob(
                feature.name, data[feature.name], feature.type, network, session.rank5
            )
            for feature in description.input
            if feature.name in data
        }
        names = [feature.name for feature in description.output]
        if isinstance(network, nn.NeuralNetworkClassifier):
            special = {description.predictedFeatureName, description.predictedProbabilitiesName}
            wanted = [name for name in names if name not in special]
            source = _probability_blob(description, network)
            made = session.run(blobs, list(dict.fromkeys([*wanted, source])))
            named = _classify(made[source], description, network)
        else:
            made, named = session.run(blobs, names), {}
        return {
            feature.name: named[feature.name]
            if feature.name in named
            else _to_user(feature.name, made[feature.name], feature.type)
            for feature in description.output
        }


def _spec_of(model: Any) -> model_pb2.Model:
    if isinstance(model, str | os.PathLike):
        return io.load_spec(model)
    if isinstance(model, bytes):
        return io.parse_spec(model)
    if isinstance(model, model_pb2.Model):
        spec = model_pb2.Model()
        spec.CopyFrom(model)
        return spec
    if hasattr(model, "SerializeToString") and type(model).__name__ == "Model":
        return io.parse_spec(model.SerializeToString(), "the message")
    raise ModelFileError(
        "MLModel takes the path of an .mlmodel file, its bytes, or a Model message, not a "
        f"{type(model).__name__}; mlferry.convert takes models of other frameworks"
    )


def _to_user(name: str, blob: Any, feature: ft.FeatureType) -> Any:
    kind = feature.WhichOneof("Type")
    if kind == "imageType":
        return images.from_blob(name, blob, feature.imageType)
    if kind == "multiArrayType":
        dtype = features.DTYPES.get(feature.multiArrayType.dataType, "float32")
        return blob.astype(dtype, copy=False)
    if kind in ("doubleType", "int64Type"):
        if blob.size != 1:
            raise PredictionError(f"output {name!r} is one number; the network made {blob.shape}")
        number = blob.reshape(-1)[0].item()
        return round(number) if kind == "int64Type" else number
    raise PredictionError(f"a network cannot make the {features.show(feature)} output {name!r}")


def class_labels(network: nn.NeuralNetworkClassifier) -> list[str] | list[int]:
    """The labels of a classifier."""
    kind = network.WhichOneof("ClassLabels")
    return list(getattr(network, kind).vector) if kind else []


def _probability_blob(
    description: model_pb2.ModelDescription, network: nn.NeuralNetworkClassifier
) -> str:
    """The blob of the probabilities; unset, it is the last layer's first output."""
    if network.labelProbabilityLayerName:
        return network.labelProbabilityLayerName
    return network.layers[-1].output[0]


def _classify(
    blob: Any,
    description: model_pb2.ModelDescription,
    network: nn.NeuralNetworkClassifier,
) -> dict[str, Any]:
    labels, chances = class_labels(network), blob.reshape(-1)
    if len(labels) != chances.size:
        raise PredictionError(
            f"the classifier has {len(labels)} labels; its network made {chances.size} values"
        )
    best = labels[int(np.argmax(chances))]
    found: dict[str, Any] = {description.predictedFeatureName: best}
    if description.predictedProbabilitiesName:
        pairs = zip(labels, chances.tolist(), strict=True)
        found[description.predictedProbabilitiesName] = dict(pairs)
    return found
