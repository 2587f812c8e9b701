"""Rules for every layer, and the walk that applies all rules about layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.message import Message

from mlferry.layers.definitions import (
    LARGEST_SIZE,
    MANY,
    Count,
    check_list,
    definition_of,
    layer_rule,
    rules_of,
)
from mlferry.layers.validate.rules import network_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problem, Problems, error, note, warning, within
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import is_repeated

_SUBNETWORKS = {
    "branch": ("ifBranch", "elseBranch"),
    "loop": ("conditionNetwork", "bodyNetwork"),
}
_OPAQUE = (nn.WeightParams.DESCRIPTOR.name, nn.NeuralNetwork.DESCRIPTOR.name)


def place(layer: nn.NeuralNetworkLayer, index: int) -> str:
    """The name of a layer in messages."""
    kind = layer.WhichOneof("layer") or "layer"
    return f"{kind} {layer.name!r}" if layer.name else f"{kind} without a name (layer {index})"


def subnetworks(layer: nn.NeuralNetworkLayer) -> Iterator[tuple[str, nn.NeuralNetwork]]:
    """The networks in a branch or loop, with their fields."""
    fields = _SUBNETWORKS.get(layer.WhichOneof("layer") or "", ())
    return zip(fields, networks.subnetworks(layer), strict=True)


@network_rule
def each_layer(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Apply every rule about single layers, also in branches and loops."""
    yield from _each_layer(network.layers)


def _each_layer(layers: Sequence[nn.NeuralNetworkLayer]) -> Problems:
    for index, layer in enumerate(layers):
        yield from within(place(layer, index), _one_layer(layer))


def _one_layer(layer: nn.NeuralNetworkLayer) -> Problems:
    kind = layer.WhichOneof("layer")
    if kind is None:
        yield error("it has no kind, or one of a newer format")
        return
    params = getattr(layer, kind)
    for rule in rules_of(kind):
        yield from rule(layer, params)
    for field, inner in subnetworks(layer):
        yield from within(field, _each_layer(inner.layers))


@network_rule
def layer_names(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Layers have different names."""
    counts = Counter(layer.name for layer in networks.layers_of(network))
    unnamed = counts.pop("", 0)
    if unnamed:
        yield note(f"{unnamed} layers have no name", "network")
    for name, count in counts.items():
        if count > 1:
            yield note(f"{count} layers have the name {name!r}", "network")


@layer_rule()
def number_of_inputs(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """A layer has as many inputs as its kind takes."""
    definition, count = definition_of(layer.WhichOneof("layer")), len(layer.input)
    if not _is_in(count, definition.inputs):
        severity = "warning" if _is_in(count, definition.evaluated) else "error"
        yield Problem(severity, "", f"it has {count} inputs; needed: {bounds(definition.inputs)}")


@layer_rule()
def number_of_outputs(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """A layer has as many outputs as its kind makes; unused ones do no harm."""
    count, expected = len(layer.output), definition_of(layer.WhichOneof("layer")).outputs
    text = f"it has {count} outputs; needed: {bounds(expected)}"
    if count < expected[0]:
        yield warning(text)
    elif count > expected[1]:
        yield error(text)


def _is_in(number: int, allowed: Count) -> bool:
    return allowed[0] <= number <= allowed[1]


def bounds(count: Count) -> str:
    """Numbers as text: ``2``, ``1 to 3``, ``2 or more``."""
    least, greatest = count
    if greatest == MANY:
        return f"{least} or more"
    return str(least) if least == greatest else f"{least} to {greatest}"


@layer_rule()
def sizes_are_positive(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """Sizes without a default are at least 1, and fit into 32 bits."""
    definition = definition_of(layer.WhichOneof("layer"))
    fields = definition.positive
    if len(layer.input) < 2:
        fields += definition.positive_alone
    for field in fields:
        size = getattr(params, field)
        if size < 1:
            yield error(f"{field} is {size}; it must be at least 1")
        elif size > LARGEST_SIZE:
            yield error(f"{field} is {size}; it must be at most {LARGEST_SIZE}")


@layer_rule()
def lists_have_their_length(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """Lists have an allowed length and sensible entries."""
    for field, allowed in definition_of(layer.WhichOneof("layer")).lists.items():
        yield from check_list(params, field, allowed)


@layer_rule()
def tensors(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """Ranks are declared for all inputs or outputs, or for none, and agree with extents."""
    for field, described, blobs in (
        ("inputTensor", layer.inputTensor, layer.input),
        ("outputTensor", layer.outputTensor, layer.output),
    ):
        if described and len(described) != len(blobs):
            yield warning(f"{field} has {len(described)} entries for {len(blobs)} blobs")
        for tensor in described:
            if tensor.dimValue and len(tensor.dimValue) != tensor.rank:
                yield warning(f"{field} has rank {tensor.rank} and {len(tensor.dimValue)} extents")


@layer_rule()
def enum_values(layer: nn.NeuralNetworkLayer, params: Message) -> Problems:
    """Every enum field holds a value that exists."""
    yield from known_enum_values(params)


def known_enum_values(params: Message) -> Problems:
    """Enum fields of a message, and of the single messages in it, hold values that exist."""
    descriptor: Any = params.DESCRIPTOR
    for path, values in _enums(descriptor):
        holder: Any = params
        for field in path[:-1]:
            holder = getattr(holder, field)
        number = getattr(holder, path[-1])
        if number not in values.values_by_number:
            names = ", ".join(values.values_by_name)
            yield error(f"{'.'.join(path)} {number} is unknown; known are {names}")


_ENUMS: dict[str, list[tuple[tuple[str, ...], EnumDescriptor]]] = {}


def _enums(descriptor: Descriptor) -> list[tuple[tuple[str, ...], EnumDescriptor]]:
    """The enum fields of a message and of the single messages in it, as paths."""
    if descriptor.full_name not in _ENUMS:
        results: list[tuple[tuple[str, ...], EnumDescriptor]] = []
        for field in descriptor.fields:
            if field.enum_type is not None:
                results.append(((field.name,), field.enum_type))
            inner = field.message_type
            if inner is not None and not is_repeated(field) and inner.name not in _OPAQUE:
                results += [((field.name, *path), values) for path, values in _enums(inner)]
        _ENUMS[descriptor.full_name] = results
    return _ENUMS[descriptor.full_name]
