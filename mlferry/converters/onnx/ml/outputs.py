"""The outputs of a graph as features, and the pipeline around its models."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.converters.graph import Value
from mlferry.converters.onnx.ml.flow import Flow, type_of
from mlferry.converters.onnx.ml.values import (
    Cell,
    Classes,
    Held,
    Known,
    Label,
    Parts,
    Pending,
    Row,
    Scores,
    Table,
    Zipped,
)
from mlferry.errors import ConversionError
from mlferry.layers import versions
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2


def finished(
    flow: Flow, inputs: Sequence[Row | Cell | Table], selected: Sequence[tuple[str, Value]]
) -> model_pb2.Model:
    """The whole model: a pipeline, or its only model.

    Raises:
        ConversionError: an output is an input, a constant, or has no form in Core ML.
    """
    for name, _ in selected:
        if any(name == value.feature for value in inputs):
            raise ConversionError(f"the output {name!r} is an input of the model")
        if flow.makes(name):
            raise ConversionError(f"{name!r} is a feature inside the pipeline: choose another name")
    shown = _classified(flow, selected)
    label, scores = "", ""
    for name, value in selected:
        entry = flow.values[value.name]
        if isinstance(entry, Label):
            label = label or name
        elif isinstance(entry, Scores | Zipped):
            scores = scores or name
        else:
            shown[name] = _feature(flow, name, entry)
    spec = model_pb2.Model()
    for source in inputs:
        spec.description.input.add(name=source.feature).type.CopyFrom(type_of(source))
    for name, _ in selected:
        spec.description.output.add(name=name).type.CopyFrom(shown[name])
    return _around(flow, spec, label, scores)


def _around(flow: Flow, spec: model_pb2.Model, label: str, scores: str) -> model_pb2.Model:
    """The pipeline, unless there is one model with the same inputs and outputs."""
    remaining = _needed(flow.models, [feature.name for feature in spec.description.output])
    if len(remaining) == 1 and all(
        [f.name for f in getattr(remaining[0].description, side)]
        == [f.name for f in getattr(spec.description, side)]
        for side in ("input", "output")
    ):
        return remaining[0]
    outputs = list(spec.description.output)
    number = len(outputs) == 1 and outputs[0].type.WhichOneof("Type") == "doubleType"
    kind = "pipelineClassifier" if label else "pipelineRegressor" if number else "pipeline"
    getattr(spec, kind).SetInParent()
    pipeline = networks.pipeline_of(spec)
    assert pipeline is not None
    pipeline.models.extend(remaining)
    if label:
        spec.description.predictedFeatureName = label
        spec.description.predictedProbabilitiesName = scores
    elif number:
        spec.description.predictedFeatureName = outputs[0].name
    spec.specificationVersion = versions.required(spec)
    return spec


def _needed(models: Sequence[model_pb2.Model], outputs: Sequence[str]) -> list[model_pb2.Model]:
    """The models that an output depends on."""
    names, remaining = set(outputs), []
    for model in reversed(models):
        if any(feature.name in names for feature in model.description.output):
            remaining.append(model)
            names |= {feature.name for feature in model.description.input}
    return remaining[::-1]


# ---- labels and scores -----------------------------------------------------------------


def _classified(flow: Flow, selected: Sequence[tuple[str, Value]]) -> dict[str, ft.FeatureType]:
    """Add the models of all labels and scores; those of one classifier by one model."""
    shown: dict[str, ft.FeatureType] = {}
    labels = {n: h for n, v in selected if isinstance(h := flow.values[v.name], Label)}
    scores = {n: h for n, v in selected if isinstance(h := flow.values[v.name], Scores | Zipped)}
    for name, entry in scores.items():
        keys = entry.labels if isinstance(entry, Zipped) else entry.classes.labels
        classes = _classes_of(flow, entry)
        same = (classes, classes.origin)
        partner = next((n for n, h in labels.items() if any(h.classes is c for c in same)), "")
        shown[name] = features.dictionary(isinstance(keys[0], str))
        if classes.add_both is not None and list(classes.labels) == list(keys):
            label = partner or flow.fresh(f"{name}_label")
            classes.add_both(keys, label, name)
            if partner:
                shown[partner] = _label_type(labels.pop(partner))
            continue
        unused = flow.fresh(f"{name}_label")
        if classes.add_scores is not None and list(classes.labels) == list(keys):
            classes.add_scores(keys, unused, name)
        else:
            flow.add_choice(classes.scores(), keys, unused, name)
    for name, label_of in labels.items():
        label_of.classes.add_label(label_of.classes.labels, name)
        shown[name] = _label_type(label_of)
    return shown


def _label_type(label: Label) -> ft.FeatureType:
    return features.string() if isinstance(label.classes.labels[0], str) else features.int64()


def _classes_of(flow: Flow, entry: Scores | Zipped) -> Classes:
    if isinstance(entry, Scores):
        return entry.classes
    if isinstance(entry.values, Scores):
        return entry.values.classes
    return flow.classes_of(entry.values, entry.labels)


# ---- other outputs ---------------------------------------------------------------------


def _feature(flow: Flow, name: str, entry: Held) -> ft.FeatureType:
    """Give an output its name; the model that computes it writes the feature."""
    if isinstance(entry, Pending | Parts):
        entry = flow.row(entry)
    if isinstance(entry, Known):
        raise ConversionError(f"the output {name!r} is a constant")
    if not isinstance(entry, Row | Cell | Table):
        raise ConversionError(f"the output {name!r} has no form in Core ML")
    feature = type_of(entry)
    if entry.feature != name:
        flow.rename(entry.feature, name, feature)
    return feature
