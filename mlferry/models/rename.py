"""Rename inputs, outputs, layers and custom classes everywhere in a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mlferry.custom import LAYOUT_KEY
from mlferry.errors import SpecError
from mlferry.programs.rename import check_name, rename_value, value_names
from mlferry.registry import did_you_mean
from mlferry.spec import networks, sizes
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_map, is_repeated

if TYPE_CHECKING:
    from google.protobuf.message import Message


def rename_feature(
    spec: model_pb2.Model,
    current_name: str,
    new_name: str,
    rename_inputs: bool = True,
    rename_outputs: bool = True,
) -> None:
    """Rename an input or output, and everything of that name inside, in place.

    Inside are the blobs of networks, in branches and loops too, their preprocessing, a
    classifier's own names, losses and training inputs, the values of ML Programs, and the models
    of a pipeline.

    Args:
        spec: the model.
        current_name: of the input or output; in a pipeline also a feature between its models,
            in an updatable model also a training input.
        new_name: what to call it.
        rename_inputs: whether to rename an input of this name.
        rename_outputs: whether to rename an output of this name.

    Raises:
        SpecError: there is no such feature (coremltools then silently changes nothing), or the new
            name is taken, or not possible in a program.
    """
    if current_name == new_name:
        return
    if not new_name:
        raise SpecError("a feature needs a name; the new one is empty")
    names = _feature_names(spec, rename_inputs, rename_outputs)
    if current_name not in names:
        close = did_you_mean(current_name, sorted(names))
        raise SpecError(f"the model has no input or output {current_name!r}.{close}")
    known = set(_every_name(spec))
    if new_name in known:
        raise SpecError(f"the name {new_name!r} is taken by another feature or blob of the model")
    if any(model.WhichOneof("Type") == "mlProgram" for model in networks.models_in(spec)):
        check_name(new_name)
    for model in networks.models_in(spec):
        _rename(model, current_name, new_name)


def _feature_names(spec: model_pb2.Model, inputs: bool, outputs: bool) -> set[str]:
    names: set[str] = set()
    for model in networks.models_in(spec):
        for ends in _ends(model):
            if inputs:
                names.update(feature.name for feature in ends.input)
            if outputs:
                names.update(feature.name for feature in ends.output)
        if inputs:
            names.update(feature.name for feature in model.description.trainingInput)
    return names


def _ends(spec: model_pb2.Model) -> Iterator[Any]:
    """The descriptions of inputs and outputs: the model's, and those of a program's functions."""
    yield spec.description
    yield from spec.description.functions


def _every_name(spec: model_pb2.Model) -> Iterator[str]:
    for model in networks.models_in(spec):
        description = model.description
        for ends in _ends(model):
            yield from (feature.name for feature in (*ends.input, *ends.output))
        yield from (feature.name for feature in description.trainingInput)
        if model.WhichOneof("Type") == "mlProgram":
            yield from value_names(model.mlProgram)
        network = networks.network_of(model)
        for loss in networks.losses_of(network) if network is not None else ():
            yield loss.target
        for layer in networks.layers_of(network) if network is not None else ():
            yield from layer.input
            yield from layer.output


def _rename(spec: model_pb2.Model, old: str, new: str) -> None:
    description = spec.description
    for ends in _ends(spec):
        for feature in (*ends.input, *ends.output):
            if feature.name == old:
                feature.name = new
        for field in ("predictedFeatureName", "predictedProbabilitiesName"):
            if getattr(ends, field) == old:
                setattr(ends, field, new)
    for feature in description.trainingInput:
        if feature.name == old:
            feature.name = new
    sizes.rename(spec, old, new)
    if spec.WhichOneof("Type") == "mlProgram":
        rename_value(spec.mlProgram, old, new)
        return
    network = networks.network_of(spec)
    if network is not None:
        _rename_blob(network, old, new)
        return
    kind = spec.WhichOneof("Type")
    if kind is not None and kind not in networks.PIPELINE_KINDS:
        _rename_fields(getattr(spec, kind), old, new)


def _rename_blob(network: networks.Network, old: str, new: str) -> None:
    networks.rename_blob(network, old, new)
    for step in network.preprocessing:
        if step.featureName == old:
            step.featureName = new
    for loss in networks.losses_of(network):
        for field in ("input", "target"):
            if getattr(loss, field) == old:
                setattr(loss, field, new)
    if isinstance(network, nn.NeuralNetworkClassifier) and network.labelProbabilityLayerName == old:
        network.labelProbabilityLayerName = new


def _rename_fields(message: Message, old: str, new: str) -> None:
    """Fields that name a feature: in non-maximum suppression, feature vectorizers and others."""
    for field, value in message.ListFields():
        if is_map(field):
            continue
        if field.message_type is not None:
            for item in value if is_repeated(field) else [value]:
                _rename_fields(item, old, new)
        elif field.name.endswith(("FeatureName", "inputColumn")) and value == old:
            setattr(message, field.name, new)


def rename_layer(spec: model_pb2.Model, current_name: str, new_name: str) -> None:
    """Rename a layer of a network, in place.

    Raises:
        SpecError: there is no such layer, or another one has the new name.
    """
    holder: model_pb2.Model | None = None
    names: list[str] = []
    for model in networks.models_in(spec):
        network = networks.network_of(model)
        own = [layer.name for layer in networks.layers_of(network)] if network else []
        names += own
        holder = model if current_name in own and holder is None else holder
    if holder is None:
        close = did_you_mean(current_name, names)
        raise SpecError(f"the model has no layer {current_name!r}.{close}")
    if new_name in names or not new_name:
        raise SpecError(f"the name {new_name!r} is taken by another layer, or empty")
    network = networks.network_of(holder)
    for layer in networks.layers_of(network) if network is not None else ():
        if layer.name == current_name:
            layer.name = new_name
    metadata = holder.description.metadata.userDefined
    if LAYOUT_KEY + current_name in metadata:
        metadata[LAYOUT_KEY + new_name] = metadata.pop(LAYOUT_KEY + current_name)


# ---- custom classes ---------------------------------------------------------------------------


def get_custom_layers(spec: model_pb2.Model) -> list[nn.NeuralNetworkLayer]:
    """The custom layers of a model, in pipelines, branches and loops too."""
    return [
        layer
        for model in networks.models_in(spec)
        for layer in networks.layers_of(networks.network_of(model) or nn.NeuralNetwork())
        if layer.HasField("custom")
    ]


def has_custom_layer(spec: model_pb2.Model) -> bool:
    """Whether a model has a custom layer."""
    return bool(get_custom_layers(spec))


def get_custom_layer_names(spec: model_pb2.Model) -> set[str]:
    """The class names of the custom layers of a model."""
    return {layer.custom.className for layer in get_custom_layers(spec)}


def replace_custom_layer_name(spec: model_pb2.Model, oldname: str, newname: str) -> None:
    """Rename the class of custom layers, in place.

    Raises:
        SpecError: no custom layer has this class.
    """
    layers = [layer for layer in get_custom_layers(spec) if layer.custom.className == oldname]
    if not layers:
        names = sorted(get_custom_layer_names(spec))
        close = did_you_mean(oldname, names)
        raise SpecError(f"no custom layer has the class {oldname!r}.{close} Classes: {names}")
    for layer in layers:
        layer.custom.className = newname
