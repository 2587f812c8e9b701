"""Rules about the model as a whole: version, kind, custom models."""

from __future__ import annotations

from mlferry.layers import versions
from mlferry.layers.validate.rules import model_rule
from mlferry.spec import networks, releases
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import model_pb2

_SHOWN = 5
_UPDATABLE = (
    *networks.NETWORK_KINDS,
    *networks.PIPELINE_KINDS,
    "kNearestNeighborsClassifier",
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
def kind_can_be_updated(spec: model_pb2.Model) -> Problems:
    """Only some kinds can be updated on a device."""
    kind = spec.WhichOneof("Type")
    if spec.isUpdatable and kind not in _UPDATABLE:
        yield warning(
            f"isUpdatable is set on a {kind}; possible are {', '.join(_UPDATABLE)}", "model"
        )


@model_rule
def custom_model_is_complete(spec: model_pb2.Model) -> Problems:
    """A custom model names its class; its parameters have names and values."""
    if spec.WhichOneof("Type") != "customModel":
        return
    custom = spec.customModel
    described = spec.description
    for role, features in (("inputs", described.input), ("outputs", described.output)):
        if not features:
            yield warning(f"it has no {role}; a custom model needs some", "description")
    for feature in described.input:
        if feature.type.isOptional:
            yield warning("a custom model takes no optional inputs", f"input {feature.name!r}")
    if not custom.className:
        yield error("className is empty; it names the class that evaluates it", "customModel")
    for name in sorted(custom.parameters):
        if not name:
            yield warning("a parameter has an empty name", "customModel")
        if custom.parameters[name].WhichOneof("value") is None:
            yield warning(f"parameter {name!r} has no value", "customModel")
