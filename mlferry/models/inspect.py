"""What Xcode shows when you open a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlferry.custom import LAYOUT_KEY, model_parameters_of, parameters_of
from mlferry.models import inspect_html
from mlferry.models.compression import weight_facts
from mlferry.models.facts import Dependency, DescribedFeature, Facts
from mlferry.models.problems import validate
from mlferry.programs import contents
from mlferry.programs.values import Weights
from mlferry.spec import features, networks, releases, weights
from mlferry.spec.problems import Problem
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn, predictors_pb2
from mlferry.spec.sizes import SIZES_KEY

_ORDERS = {"source": "in the source's order of axes", "channels first": "channels first"}
_METADATA = (
    ("description", "shortDescription"),
    ("author", "author"),
    ("licence", "license"),
    ("version", "versionString"),
)


class Description(Facts):
    """The facts about a model; prints as text, and displays in notebooks."""

    def _repr_html_(self) -> str:
        return inspect_html.fragment(self)

    def html(self) -> str:
        """A self-contained page."""
        return inspect_html.page(self)


def describe(
    spec: model_pb2.Model,
    problems: Sequence[Problem] | None = None,
    weights_files: Weights | None = None,
    original: tuple[model_pb2.Model, Weights | None] | None = None,
) -> Description:
    """The facts about a model.

    Args:
        spec: of the model.
        problems: those that `validate` has found already.
        weights_files: those of its programs, to see how they are compressed.
        original: the model that it was made of, from which its weights differ.
    """
    listed = validate(spec) if problems is None else problems
    pipeline = networks.pipeline_of(spec)
    inner = [describe(model, ()) for model in pipeline.models] if pipeline is not None else []
    network = networks.network_of(spec)
    layers = Counter[str]()
    sizes = Counter[str]()
    for model in inner:
        layers.update(model.layers)
        sizes.update(model.weights)
    if network is not None:
        layers.update(layer.WhichOneof("layer") or "unknown" for layer in _layers(network))
        sizes.update(_weights(network))
    if spec.WhichOneof("Type") == "mlProgram":
        layers.update(contents.operation_counts(spec.mlProgram))
        sizes.update(contents.weight_counts(spec.mlProgram))
    ends = _default_function(spec)
    entries = spec.description.metadata
    metadata = {
        label: getattr(entries, field) for label, field in _METADATA if getattr(entries, field)
    }
    metadata |= {
        key: value
        for key, value in sorted(entries.userDefined.items())
        if not key.startswith((LAYOUT_KEY, SIZES_KEY))
    }
    whole = problems != ()  # the outer model says it for those inside
    compressed, by_layer = weight_facts(spec, weights_files, original) if whole else ([], [])
    return Description(
        kind=spec.WhichOneof("Type") or "unknown",
        size=spec.ByteSize(),
        specification_version=spec.specificationVersion,
        systems=_systems(spec.specificationVersion),
        metadata=metadata,
        inputs=[_feature(feature) for feature in ends.input],
        outputs=[_feature(feature) for feature in ends.output],
        states=[_feature(feature) for feature in ends.state],
        functions=_functions(spec),
        labels=_labels(spec),
        updatable=spec.isUpdatable,
        updatable_layers=_updatable_layers(spec),
        training_inputs=[_feature(feature) for feature in spec.description.trainingInput],
        layers=dict(layers.most_common()),
        weights=dict(sizes.most_common()),
        dependencies=[*_dependencies(spec), *(d for model in inner for d in model.dependencies)],
        problems=[f"{problem.severity}: {problem}" for problem in listed],
        models=inner,
        compressed=compressed,
        by_layer=by_layer,
    )


def _default_function(spec: model_pb2.Model) -> Any:
    """The description of inputs and outputs: the model's, or that of its default function."""
    described = spec.description
    name = described.defaultFunctionName
    return next((each for each in described.functions if each.name == name), described)


def _functions(spec: model_pb2.Model) -> list[str]:
    """The functions of a program with their opsets; the default one is marked."""
    if spec.WhichOneof("Type") != "mlProgram":
        return []
    default = spec.description.defaultFunctionName or "main"
    functions = spec.mlProgram.functions
    return [
        f"{name} ({functions[name].opset}{', the default' if name == default else ''})"
        for name in sorted(functions)
    ]


def _feature(feature: model_pb2.FeatureDescription) -> DescribedFeature:
    return DescribedFeature(feature.name, features.show(feature.type), feature.shortDescription)


def _systems(version: int) -> dict[str, str]:
    if not 1 <= version <= releases.NEWEST:
        return {}
    needs = releases.release(version)
    return {
        "iOS": needs.ios,
        "macOS": needs.macos,
        "tvOS": needs.tvos,
        "watchOS": needs.watchos,
    }


def _labels(spec: model_pb2.Model) -> list[str]:
    kind = spec.WhichOneof("Type")
    if kind == "mlProgram":
        return contents.class_labels(spec.mlProgram, spec.description.defaultFunctionName or "main")
    holder = getattr(spec, kind) if kind else None
    if holder is None or "ClassLabels" not in holder.DESCRIPTOR.oneofs_by_name:
        return []
    return [str(label) for label in networks.class_labels(holder)]


def _updatable_layers(spec: model_pb2.Model) -> list[str]:
    """Of the model and of those inside of it."""
    every = (networks.network_of(model) for model in networks.models_in(spec))
    return [
        layer.name
        for network in every
        for layer in (_layers(network) if network is not None else ())
        if spec.isUpdatable and layer.isUpdatable
    ]


def _layers(network: networks.Network) -> list[nn.NeuralNetworkLayer]:
    return list(networks.layers_of(network))


def _weights(network: networks.Network) -> Counter[str]:
    sizes = Counter[str]()
    for weight in weights.iter_weights(network):
        kind = weights.encoding(weight.message)
        if kind is not None:
            sizes[str(kind)] += weights.count(weight.message)
    return sizes


def _dependencies(spec: model_pb2.Model) -> Iterator[Dependency]:
    if spec.WhichOneof("Type") == "customModel":
        yield _custom_model(spec.customModel)
    network = networks.network_of(spec)
    metadata = dict(spec.description.metadata.userDefined)
    for layer in _layers(network) if network is not None else ():
        if layer.HasField("custom"):
            yield custom_layer(layer, metadata)


def custom_layer(layer: nn.NeuralNetworkLayer, metadata: Mapping[str, str]) -> Dependency:
    """A custom layer, with what the model's metadata say about its data."""
    order = metadata.get(LAYOUT_KEY + layer.name, "")
    return Dependency(
        "custom layer",
        layer.custom.className,
        layer.name,
        layer.custom.description,
        dict(parameters_of(layer.custom)),
        [f"{weights.count(w):,} {weights.encoding(w) or 'values'}" for w in layer.custom.weights],
        _ORDERS.get(order, order),
    )


def _custom_model(params: predictors_pb2.CustomModel) -> Dependency:
    parameters = dict(model_parameters_of(params))
    return Dependency("custom model", params.className, "", params.description, parameters, [], "")
