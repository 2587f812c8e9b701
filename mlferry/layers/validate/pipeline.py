"""Rules about pipelines and the models in them."""

from __future__ import annotations

from mlferry.layers import versions
from mlferry.layers.validate.rules import MODEL_RULES, model_rule
from mlferry.spec import features, networks, releases
from mlferry.spec.problems import Problem, Problems, error, hint, warning, within
from mlferry.spec.proto import features_pb2 as ft, model_pb2

_ROOT_ONLY = ("version_is_known", "version_has_the_features")


def place(index: int, pipeline: model_pb2.Pipeline) -> str:
    """The name of a model of a pipeline in messages."""
    name = pipeline.names[index] if index < len(pipeline.names) else ""
    return f"model {index} {name!r}" if name else f"model {index}"


@model_rule
def pipeline_models(spec: model_pb2.Model) -> Problems:
    """There are models, each of which keeps the rules; the pipeline's version counts."""
    pipeline = networks.pipeline_of(spec)
    if pipeline is None:
        return
    if not pipeline.models:
        yield error("it holds no models", "pipeline")
    for index, inner in enumerate(pipeline.models):
        if inner.specificationVersion < 1:
            result = f"specificationVersion is {inner.specificationVersion}; versions start at 1"
            yield warning(result, place(index, pipeline))
        elif inner.specificationVersion > releases.NEWEST:
            result = f"specificationVersion is {inner.specificationVersion}"
            text = f"{result}, newer than {releases.NEWEST}, the newest known"
            yield warning(text, place(index, pipeline))
        elif inner.isUpdatable and inner.specificationVersion < versions.UPDATABLE:
            result = f"specificationVersion is {inner.specificationVersion}"
            text = f"{result}; updatable models need {versions.UPDATABLE}"
            yield warning(text, place(index, pipeline))
        rules = [rule for rule in MODEL_RULES if rule.__name__ not in _ROOT_ONLY]
        problems = (problem for rule in rules for problem in rule(inner))
        yield from within(place(index, pipeline), problems)


@model_rule
def pipeline_names(spec: model_pb2.Model) -> Problems:
    """There are as many names as models, or none; each occurs once."""
    pipeline = networks.pipeline_of(spec)
    if pipeline is None or not pipeline.names:
        return
    if len(pipeline.names) != len(pipeline.models):
        yield warning(f"{len(pipeline.names)} names for {len(pipeline.models)} models", "pipeline")
    if len(set(pipeline.names)) < len(pipeline.names):
        yield warning(f"names are used twice: {', '.join(pipeline.names)}", "pipeline")


@model_rule
def pipeline_flow(spec: model_pb2.Model) -> Problems:
    """What a model reads comes from an input or an earlier model, with the same type."""
    pipeline = networks.pipeline_of(spec)
    if pipeline is None:
        return
    results = {feature.name: feature.type for feature in spec.description.input}
    for index, inner in enumerate(pipeline.models):
        for feature in inner.description.input:
            yield from within(place(index, pipeline), _flows(feature, results, "input"))
        results |= {feature.name: feature.type for feature in inner.description.output}
    for feature in spec.description.output:
        yield from _flows(feature, results, "output")


def _flows(
    feature: model_pb2.FeatureDescription, available: dict[str, ft.FeatureType], role: str
) -> Problems:
    where = f"{role} {feature.name!r}"
    if feature.name not in available:
        suggestion = hint(feature.name, available)
        text = f"no input of the pipeline and no model before it gives it.{suggestion}"
        optional = role == "input" and feature.type.isOptional
        yield Problem("warning" if optional else "error", where, text)
    elif feature.type != available[feature.name]:
        yield warning(
            f"its type, {features.show(feature.type)}, is not the one that it is given: "
            f"{features.show(available[feature.name])}",
            where,
        )


@model_rule
def pipeline_update(spec: model_pb2.Model) -> Problems:
    """In an updatable pipeline, only the last model is updatable."""
    pipeline = networks.pipeline_of(spec)
    if pipeline is None:
        return
    last = len(pipeline.models) - 1
    for index, inner in enumerate(pipeline.models):
        expected = spec.isUpdatable and index == last
        if inner.isUpdatable != expected:
            allowed = "only the last model of an updatable pipeline is updatable, and it must be"
            result = str(inner.isUpdatable).lower()
            yield warning(f"isUpdatable is {result}; {allowed}", place(index, pipeline))
