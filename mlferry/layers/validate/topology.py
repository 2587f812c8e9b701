"""Rules about blobs: what makes and reads them, and how inputs become blobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlferry.layers import versions
from mlferry.layers.validate.layers import place, subnetworks
from mlferry.layers.validate.rules import network_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problems, error, hint, listed, warning, within
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

Blobs = dict[str, str]  # the maker of each blob, by its name

_INPUT_TYPES = ("imageType", "multiArrayType")
_SCALARS = ("doubleType", "int64Type")
_LEGACY_RANKS = (1, 3)


@network_rule
def has_layers(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """A network has layers."""
    if not network.layers:
        yield error("it has no layers", "network")


@network_rule
def an_input_is_required(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """If a network has inputs, one of them is not optional."""
    described = spec.description.input
    if described and all(feature.type.isOptional for feature in described):
        yield warning(
            "all inputs are optional; a neural network needs one that is not", "description"
        )


@network_rule
def flexible_arrays_have_a_shape(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """In the exact mapping, arrays of several shapes have a default one."""
    if versions.uses_rank5(network):
        return
    for feature in spec.description.input:
        array = feature.type.multiArrayType
        if array.WhichOneof("ShapeFlexibility") and not array.shape:
            yield warning(
                "it has several shapes and no default: set multiArrayType.shape, too",
                f"input {feature.name!r}",
            )


@network_rule
def feature_types(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Inputs and outputs of a network are images and multi-arrays."""
    description = spec.description
    plain = isinstance(network, nn.NeuralNetwork)
    special = (description.predictedFeatureName, description.predictedProbabilitiesName)
    is_classifier = isinstance(network, nn.NeuralNetworkClassifier)
    for feature in description.input:
        yield from within(f"input {feature.name!r}", _type_fits(feature.type, True))
    for feature in description.output:
        if not (is_classifier and feature.name in special):
            yield from within(f"output {feature.name!r}", _type_fits(feature.type, plain))


def _type_fits(type_: ft.FeatureType, strict: bool) -> Problems:
    which_oneof = type_.WhichOneof("Type")
    text = f"its type is {which_oneof}; neural networks have {' and '.join(_INPUT_TYPES)}"
    if which_oneof in _SCALARS:
        if strict:
            yield warning(text)
    elif which_oneof is not None and which_oneof not in _INPUT_TYPES:
        yield error(text)


@network_rule
def mapping_values(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Both mappings are known."""
    for field in ("arrayInputShapeMapping", "imageInputShapeMapping"):
        known: Any = network.DESCRIPTOR.fields_by_name[field].enum_type
        number = getattr(network, field)
        if number not in known.values_by_number:
            names = ", ".join(known.values_by_name)
            yield error(f"{field} {number} is unknown; known are {names}", "network")


@network_rule
def mapping_fits_layers(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Multi-array inputs of a network that is not classic are mapped exactly."""
    arrays = [
        feature.name
        for feature in spec.description.input
        if feature.type.WhichOneof("Type") == "multiArrayType"
    ]
    if not arrays or network.arrayInputShapeMapping != nn.RANK5_ARRAY_MAPPING:
        return
    advice = f"for the multi-array input {arrays[0]!r}; write EXACT_ARRAY_MAPPING"
    for index, layer in enumerate(network.layers):
        if versions.needs_exact_mapping(layer):
            yield warning(
                f"arrayInputShapeMapping is RANK5_ARRAY_MAPPING, which {place(layer, index)} "
                f"does not allow {advice}",
                "network",
            )
            break
    if network.imageInputShapeMapping != nn.RANK5_IMAGE_MAPPING:
        yield warning(
            "arrayInputShapeMapping is RANK5_ARRAY_MAPPING, though imageInputShapeMapping is "
            f"not RANK5_IMAGE_MAPPING: not allowed {advice}",
            "network",
        )


@network_rule
def legacy_ranks(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """In the classic mapping, a multi-array input is a vector or [C, H, W]."""
    if not versions.uses_rank5(network):
        return
    for feature in spec.description.input:
        if feature.type.WhichOneof("Type") != "multiArrayType":
            continue
        array = feature.type.multiArrayType
        shapes: list[Sequence[int]] = [array.shape]
        shapes += [item.shape for item in array.enumeratedShapes.shapes]
        ranks = [len(shape) for shape in shapes if shape]
        if array.HasField("shapeRange"):
            ranks.append(len(array.shapeRange.sizeRanges))
        if any(rank not in _LEGACY_RANKS for rank in ranks):
            yield warning(
                f"its shapes have {listed(sorted(set(ranks)))} extents; in RANK5_ARRAY_MAPPING "
                "they have 1 (C) or 3 (C, H, W)",
                f"input {feature.name!r}",
            )


@network_rule
def blobs_flow(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Each layer reads blobs that exist already; layers make the outputs."""
    blobs: Blobs = {feature.name: "the inputs" for feature in spec.description.input}
    inputs = set(blobs)
    yield from _walk(network.layers, blobs, in_loop=False)
    results = {blob for layer in networks.layers_of(network) for blob in layer.output}
    special: set[str] = set()
    if isinstance(network, nn.NeuralNetworkClassifier):
        description = spec.description
        special = {description.predictedFeatureName, description.predictedProbabilitiesName}
    for feature in spec.description.output:
        if feature.name in special:
            continue
        where = f"output {feature.name!r}"
        if feature.name not in blobs:
            yield error(f"no layer makes it.{hint(feature.name, blobs)}", where)
        elif feature.name in inputs and feature.name not in results:
            yield warning("it is an input; no layer makes it", where)


def _walk(layers: Iterable[nn.NeuralNetworkLayer], blobs: Blobs, *, in_loop: bool) -> Problems:
    """Follow the layers, and collect what they make in `blobs`."""
    for index, layer in enumerate(layers):
        where = place(layer, index)
        yield from within(where, _reads(layer, blobs))
        yield from within(where, _enters(layer, blobs, in_loop))
        yield from within(where, _writes(layer, where, blobs))


def _reads(layer: nn.NeuralNetworkLayer, blobs: Blobs) -> Problems:
    for name in dict.fromkeys(layer.input):
        if name not in blobs:
            yield error(
                f"its input {name!r} is not an input of the model, and no layer before it makes it"
            )


def _writes(layer: nn.NeuralNetworkLayer, where: str, blobs: Blobs) -> Problems:
    for name in layer.output:
        if name in blobs and layer.WhichOneof("layer") != "copy":
            yield warning(
                f"its output {name!r} is there already, from {blobs[name]}; only a copy layer "
                "may write a blob again"
            )
        blobs[name] = where


def _enters(layer: nn.NeuralNetworkLayer, blobs: Blobs, in_loop: bool) -> Problems:
    """Follow a branch or a loop; blobs that every way makes exist after it."""
    scopes: dict[str, Blobs] = {}
    if layer.WhichOneof("layer") in ("loopBreak", "loopContinue") and not in_loop:
        yield error("it is outside of the bodyNetwork of a loop")
    for field, inner in subnetworks(layer):
        scope = dict(blobs)
        yield from within(
            field, _walk(inner.layers, scope, in_loop=in_loop or field == "bodyNetwork")
        )
        scopes[field] = scope
        if field == "conditionNetwork":
            yield from _condition(layer.loop, blobs, scope)
            blobs |= scope
    if "ifBranch" in scopes and layer.branch.elseBranch.layers:
        both = scopes["ifBranch"].keys() & scopes["elseBranch"].keys()
        blobs |= {name: scopes["ifBranch"][name] for name in both}
    if "bodyNetwork" in scopes and not layer.loop.conditionNetwork.layers:
        blobs |= scopes["bodyNetwork"]


def _condition(loop: nn.LoopLayerParams, before: Blobs, after: Blobs) -> Problems:
    name = loop.conditionVar
    if not loop.conditionNetwork.layers:
        return
    if name and name not in after:
        yield error(f"conditionVar {name!r} is made by no layer of conditionNetwork")
    elif name and before.get(name) == after[name]:
        yield warning(f"conditionVar {name!r} is not written again by conditionNetwork")
