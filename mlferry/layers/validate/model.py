"""Rules about the model as a whole: version, kind, custom models."""

from __future__ import annotations

from mlferry.layers import versions
from mlferry.layers.validate.rules import kind_rule, model_rule
from mlferry.spec import networks, releases
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

_SHOWN = 5
_UPDATABLE = (
    *networks.NETWORK_KINDS,
    *networks.PIPELINE_KINDS,
    "kNearestNeighborsClassifier",
)
_DEFAULTS = (*networks.NETWORK_KINDS, "mlProgram", "serializedModel")
_MAY_BE_CONSTANT = (*networks.NETWORK_KINDS, *networks.PIPELINE_KINDS, "mlProgram")
_OPTIONAL = (
    *_DEFAULTS,
    *networks.PIPELINE_KINDS,
    *("treeEnsembleRegressor", "treeEnsembleClassifier"),
    *("itemSimilarityRecommender", "identity", "imputer"),
)


@model_rule
def version_is_known(spec: model_pb2.Model) -> Problems:
    """`specificationVersion` is one that exists."""
    version = spec.specificationVersion
    if version < 1:
        yield error(
            f"specificationVersion is {version}; versions go from 1 to {releases.NEWEST}", "model"
        )
    elif version > releases.NEWEST:
        yield warning(
            f"specificationVersion {version} is newer than {releases.NEWEST}, the newest known: "
            "its additions are unknown here",
            "model",
        )


@model_rule
def version_has_the_features(spec: model_pb2.Model) -> Problems:
    """`specificationVersion` is not below what the features need."""
    version = spec.specificationVersion
    result = versions.why(spec, version) if version >= 1 else []
    if result:
        more = f", and {len(result) - _SHOWN} more" if len(result) > _SHOWN else ""
        yield warning(
            f"specificationVersion is {version}, but {', '.join(result[:_SHOWN])}{more}; "
            f"write {versions.required(spec)}",
            "model",
        )


@model_rule
def kind_is_set(spec: model_pb2.Model) -> Problems:
    """The model has a kind."""
    if spec.WhichOneof("Type") is None:
        yield error("it has no kind, or one of a newer format", "model")


@model_rule
def has_inputs_and_outputs(spec: model_pb2.Model) -> Problems:
    """There are outputs, and inputs unless the kind may compute constants."""
    kind, described = spec.WhichOneof("Type"), spec.description
    if described.functions:
        return  # each of them has its own
    if not described.input and kind not in _MAY_BE_CONSTANT:
        yield warning(f"it has no inputs; {kind} models need some", "description")
    if not described.output:
        yield warning("it has no outputs", "description")


@model_rule
def kind_can_be_updated(spec: model_pb2.Model) -> Problems:
    """Only some kinds can be updated on a device."""
    kind = spec.WhichOneof("Type")
    if spec.isUpdatable and kind not in _UPDATABLE:
        yield warning(
            f"isUpdatable is set on a {kind}; possible are {', '.join(_UPDATABLE)}", "model"
        )


@kind_rule("customModel")
def custom_model_is_complete(spec: model_pb2.Model, custom: pp.CustomModel) -> Problems:
    """A custom model names its class; its parameters have names and values."""
    if not custom.className:
        yield error("className is empty; it names the class that evaluates it")
    for name in sorted(custom.parameters):
        if not name:
            yield warning("a parameter has an empty name")
        if custom.parameters[name].WhichOneof("value") is None:
            yield warning(f"parameter {name!r} has no value")


@model_rule
def inputs_may_be_optional(spec: model_pb2.Model) -> Problems:
    """Some kinds take optional inputs; default values are for networks and programs."""
    kind = spec.WhichOneof("Type") or ""
    optional = [feature for feature in spec.description.input if feature.type.isOptional]
    for feature in optional:
        where = f"input {feature.name!r}"
        if kind not in _OPTIONAL:
            yield warning(f"isOptional is set; {kind} models take no optional inputs", where)
        default = feature.type.multiArrayType.WhichOneof("defaultOptionalValue")
        if default is not None and kind not in _DEFAULTS:
            yield warning(f"{default} is set; default values are for networks alone", where)
