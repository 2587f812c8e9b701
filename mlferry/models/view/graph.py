"""A model as boxes and edges, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from mlferry.custom import CustomLayer
from mlferry.layers.params import defaults_of
from mlferry.layers.trace import Known, ShapeTrace, blob_shapes, trace
from mlferry.models.inspect import custom_layer, describe
from mlferry.models.view import programs
from mlferry.models.view.boxes import Box, BoxGraph, Rows
from mlferry.models.view.families import brief, layer_family
from mlferry.models.view.padding import is_padding, padding
from mlferry.models.view.stored import WeightDetail
from mlferry.runtime.custom import shapes_of_classes
from mlferry.spec import networks, weights
from mlferry.spec.features import show
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.spec.reflection import Field, is_map, is_repeated

if TYPE_CHECKING:
    from google.protobuf.message import Message

StoredForms = Mapping[tuple[str, str], str]
Details = Mapping[tuple[str, str], WeightDetail]


@dataclass(frozen=True)
class StoredFacts:
    """Facts about the weights of a model.

    Attributes:
        stored_forms: how those are stored that are in fewer bits: of a layer's by its name and the
            parameter, of a program's by the function and its name.
        details: facts about their values, likewise.
    """

    stored_forms: StoredForms = field(default_factory=dict)
    details: Details = field(default_factory=dict)


NOTHING = StoredFacts()
_TIMES = " \N{MULTIPLICATION SIGN} "
_SHOWN = 24  # entries of a list of numbers


def graph_of(
    spec: model_pb2.Model,
    classes: Mapping[str, type[CustomLayer]],
    input_shapes: Mapping[str, Sequence[int]],
    facts: StoredFacts = NOTHING,
) -> BoxGraph:
    """The graph of a model; those inside of it are in the boxes.

    Args:
        spec: of the model.
        classes: those of its custom layers, by name.
        input_shapes: of inputs, where they differ from the described ones.
        facts: facts about its weights.
    """
    network, pipeline = networks.network_of(spec), networks.pipeline_of(spec)
    graph = BoxGraph()
    labels = {f.name: show(f.type) for f in (*spec.description.input, *spec.description.output)}
    for feature in spec.description.input:
        graph.add(_end(feature, "input"), [], [(feature.name, labels[feature.name])])
    if network is not None:
        traced = trace(network, blob_shapes(spec, input_shapes), shapes_of_classes(classes))
        _network(graph, spec, network, traced, facts)
        labels |= {name: _times(traced.shapes, name) for name in traced.shapes}
    elif pipeline is not None:
        for index, model in enumerate(pipeline.models):
            _model(graph, model, pipeline.names[index : index + 1], classes, facts)
    elif spec.WhichOneof("Type") == "mlProgram":
        labels |= programs.draw(graph, spec, facts.stored_forms, facts.details)
    else:
        _model(graph, spec, (), classes, facts)
    for feature in spec.description.output:
        source = _made_by(spec, feature.name, graph)
        graph.add(_end(feature, "output"), [(source, labels.get(source, ""))], [])
    return graph


def _end(feature: model_pb2.FeatureDescription, role: str) -> Box:
    rows = [("type", show(feature.type))]
    if feature.shortDescription:
        rows.append(("description", feature.shortDescription))
    return Box(feature.name, role, rows, role=role)


def _made_by(spec: model_pb2.Model, name: str, graph: BoxGraph) -> str:
    """The blob of an output: a classifier's outputs come from its probabilities."""
    network = networks.network_of(spec)
    if name in graph.makers or not isinstance(network, nn.NeuralNetworkClassifier):
        return name
    last = list(network.layers[-1].output) if network.layers else []
    return network.labelProbabilityLayerName or next(iter(last), name)


# ---- networks ---------------------------------------------------------------------------------


def _network(
    graph: BoxGraph,
    spec: model_pb2.Model,
    network: networks.Network,
    traced: ShapeTrace,
    facts: StoredFacts,
) -> None:
    refused = {refusal.layer.name: refusal.reason for refusal in traced.refusals}
    metadata = dict(spec.description.metadata.userDefined)
    _layers(graph, network.layers, traced.shapes, refused, metadata, facts)


def _layers(
    graph: BoxGraph,
    layers: Sequence[nn.NeuralNetworkLayer],
    shapes: Known,
    refused: Mapping[str, str],
    metadata: Mapping[str, str],
    facts: StoredFacts,
) -> None:
    for layer in layers:
        kind = layer.WhichOneof("layer") or "unknown"
        box = Box(layer.name, kind, list(_rows(layer, kind, facts)))
        if kind != "unknown":
            box.family = layer_family(kind)
            _weigh(box, layer, kind, facts.details)
            if text := padding(layer, shapes):
                box.rows = [("padding", text), *(r for r in box.rows if not is_padding(r[0]))]
        if kind == "custom":
            box.brief = []
            dependency = custom_layer(layer, metadata)
            box.kind, box.role = dependency.class_name, "custom"
            box.rows = [
                ("kind", dependency.kind),
                ("class", dependency.class_name),
                *dependency.details(),
            ]
        if layer.name in refused:
            box.rows.append(("does not fit", refused[layer.name]))
        bodies = networks.subnetworks(layer)
        for title, body in zip(_TITLES.get(kind, ()), bodies, strict=False):
            if body.layers:
                box.inside.append((title, _body(body, shapes, refused, metadata, facts)))
        reads, writes = set(layer.input), set(layer.output)
        if bodies:
            reads, writes = networks.touched(layer)
        order = [*layer.input, *sorted(reads - set(layer.input))]
        outputs = [*layer.output, *sorted(writes - set(layer.output))]
        graph.add(
            box, [(n, _times(shapes, n)) for n in order], [(n, _times(shapes, n)) for n in outputs]
        )


def _weigh(box: Box, layer: nn.NeuralNetworkLayer, kind: str, details: Details) -> None:
    """The facts about the weights of a box; the largest and the main attribute are shown in it."""
    fields = [weight.path.partition(".")[2] for weight in weights.iter_weights(layer)]
    box.weights = [
        (name, details[layer.name, name]) for name in fields if (layer.name, name) in details
    ]
    box.write_brief(brief(layer, kind))


_TITLES = {"branch": ("if true", "else"), "loop": ("condition", "body")}


def _body(
    network: nn.NeuralNetwork,
    shapes: Known,
    refused: Mapping[str, str],
    metadata: Mapping[str, str],
    facts: StoredFacts,
) -> BoxGraph:
    """The inside of a branch or loop; blobs from outside are its inputs."""
    graph = BoxGraph()
    known: set[str] = set()
    for layer in network.layers:
        reads, writes = networks.touched(layer)
        for name in sorted(reads - known):
            text = _times(shapes, name)
            graph.add(
                Box(name, "from outside", [("shape", text)], role="input"), [], [(name, text)]
            )
            known.add(name)
        known |= writes
    _layers(graph, network.layers, shapes, refused, metadata, facts)
    return graph


def _times(shapes: Known, name: str) -> str:
    shape = shapes.get(name)
    if shape is None:
        return "?"
    extents = ["?" if extent is None else str(extent) for extent in shape]
    return _TIMES.join(extents) or "one number"


# ---- pipelines and others ---------------------------------------------------------------------


def _model(
    graph: BoxGraph,
    spec: model_pb2.Model,
    names: Sequence[str],
    classes: Mapping[str, type[CustomLayer]],
    stored: StoredFacts,
) -> None:
    facts = describe(spec, ())
    name = names[0] if names else facts.kind
    box = Box(name, facts.kind, _facts(spec))
    if facts.kind == "customModel":
        box.role = "custom"
    if facts.kind == "mlProgram" or any(
        holder is not None for holder in (networks.network_of(spec), networks.pipeline_of(spec))
    ):
        box.inside.append((name, graph_of(spec, classes, {}, stored)))
    graph.add(
        box, [(f.name, f.type) for f in facts.inputs], [(f.name, f.type) for f in facts.outputs]
    )


def _facts(spec: model_pb2.Model) -> Rows:
    description = describe(spec, ())
    rows = list(description.facts())
    for dependency in description.dependencies:
        rows += [("class", dependency.class_name), *dependency.details()]
    return rows


# ---- parameters -------------------------------------------------------------------------------


def _rows(layer: nn.NeuralNetworkLayer, kind: str, facts: StoredFacts) -> Iterator[tuple[str, str]]:
    if kind == "unknown":
        return
    for name, text in _fields(getattr(layer, kind), ""):
        known = facts.stored_forms.get((layer.name, name))
        detail = facts.details.get((layer.name, name))
        values = detail.values if detail is not None and detail.values else text
        yield name, values if known is None else f"{values}: {known}"


def _fields(message: Message, prefix: str) -> Iterator[tuple[str, str]]:
    """Every field that is set, and unset ones with a default of Core ML's own."""
    present = {descriptor.name for descriptor, _ in message.ListFields()}
    for descriptor, value in message.ListFields():
        name = f"{prefix}{descriptor.name}"
        if isinstance(value, nn.WeightParams):
            kind = weights.encoding(value)
            yield name, f"{weights.count(value):,} values, {kind}" if kind else "no values"
        elif isinstance(value, nn.NeuralNetwork):
            continue
        elif is_map(descriptor):
            yield name, ", ".join(f"{key}: {value[key]}" for key in sorted(value))
        elif is_repeated(descriptor):
            yield from _repeated(name, descriptor, value)
        elif descriptor.message_type is not None:
            inner = list(_fields(value, f"{name}."))
            yield from inner or [(name, "set")]
        else:
            yield name, _scalar(descriptor, value)
    for field_name, default in defaults_of(message.DESCRIPTOR.name).items():
        if field_name not in present:
            text = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
            yield f"{prefix}{field_name}", f"{text} (default)"
    for each in message.DESCRIPTOR.fields:
        plain = each.containing_oneof is None and not is_repeated(each)
        if each.enum_type is not None and each.name not in present and plain:
            unset = each.enum_type.values_by_number[0].name
            yield f"{prefix}{each.name}", f"{unset} (default)"


def _repeated(
    name: str, descriptor: FieldDescriptor, value: Sequence[Any]
) -> Iterator[tuple[str, str]]:
    if descriptor.message_type is not None:
        for index, item in enumerate(value[:_SHOWN]):
            if isinstance(item, nn.WeightParams):
                kind = weights.encoding(item)
                yield f"{name}[{index}]", f"{weights.count(item):,} values, {kind}"
            else:
                yield from _fields(item, f"{name}[{index}].")
        return
    text = ", ".join(_scalar(descriptor, item) for item in value[:_SHOWN])
    yield name, text + (f", ... ({len(value)})" if len(value) > _SHOWN else "")


def _scalar(descriptor: Field, value: float | str) -> str:
    if descriptor.enum_type is not None:
        entry = descriptor.enum_type.values_by_number.get(value)
        return str(entry.name) if entry is not None else str(value)
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return f"{value:g}" if isinstance(value, float) else str(value)
