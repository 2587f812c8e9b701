"""Rules about the outputs of classifiers and regressors."""

from __future__ import annotations

from collections import Counter
from typing import Any

from google.protobuf.message import Message

from mlferry.layers.validate.rules import model_rule, network_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problem, Problems, error, hint, listed, note, warning
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

_LABELS = {  # field of the labels: type of the predicted label, type of the keys
    "stringClassLabels": ("stringType", "stringKeyType"),
    "int64ClassLabels": ("int64Type", "int64KeyType"),
}


def _output(spec: model_pb2.Model, name: str) -> ft.FeatureType | None:
    for feature in spec.description.output:
        if feature.name == name:
            return feature.type
    return None


def _no_output(spec: model_pb2.Model, field: str, name: str) -> Problem:
    suggestion = hint(name, (feature.name for feature in spec.description.output))
    return warning(f"{field} {name!r} is not an output.{suggestion}", "description")


CLASSIFIERS = (
    *("neuralNetworkClassifier", "glmClassifier", "supportVectorClassifier"),
    *("treeEnsembleClassifier", "kNearestNeighborsClassifier"),
)
REGRESSORS = (
    *("neuralNetworkRegressor", "glmRegressor"),
    *("supportVectorRegressor", "treeEnsembleRegressor"),
)


def _classifier(spec: model_pb2.Model) -> Any:
    """The parameters of a classifier of any kind, or None for another model."""
    kind = spec.WhichOneof("Type")
    return getattr(spec, kind) if kind in CLASSIFIERS else None


def _wanted(classifier: Message) -> tuple[str, str] | None:
    """The types of label and keys that fit the labels."""
    default = {"defaultStringLabel": "stringClassLabels", "defaultInt64Label": "int64ClassLabels"}
    field = classifier.WhichOneof("ClassLabels")
    if not field and "defaultStringLabel" in classifier.DESCRIPTOR.fields_by_name:
        field = default.get(classifier.WhichOneof("DefaultClassLabel") or "")
    return _LABELS.get(field or "")


@model_rule
def labels(spec: model_pb2.Model) -> Problems:
    """A classifier has unique labels, except for nearest neighbours, which have one per sample."""
    kind, classifier = spec.WhichOneof("Type"), _classifier(spec)
    if classifier is None or kind == "kNearestNeighborsClassifier":
        return
    results = networks.class_labels(classifier)
    if not results and kind == "treeEnsembleClassifier":
        yield note("it has no labels: they are 0, 1, ...", "classifier")
    elif not results:
        yield error(f"it has no labels: {' or '.join(_LABELS)}", "classifier")
    twice = [label for label, count in Counter(results).items() if count > 1]
    if twice:
        yield warning(f"labels occur more than once: {listed(map(repr, twice))}", "classifier")


@model_rule
def predicted_label(spec: model_pb2.Model) -> Problems:
    """The predicted label is an output of the labels' type."""
    classifier = _classifier(spec)
    if classifier is None:
        return
    name = spec.description.predictedFeatureName
    if not name:
        yield warning("predictedFeatureName is empty; it names the label's output", "description")
        return
    type_ = _output(spec, name)
    if type_ is None:
        yield _no_output(spec, "predictedFeatureName", name)
        return
    types, result = _wanted(classifier), type_.WhichOneof("Type")
    if types and result != types[0]:
        yield warning(
            f"its type is {result}; for these labels it is {types[0]}", f"output {name!r}"
        )


@model_rule
def predicted_probabilities(spec: model_pb2.Model) -> Problems:
    """The probabilities are an output: a dictionary with keys of the labels' type."""
    classifier = _classifier(spec)
    if classifier is None:
        return
    name = spec.description.predictedProbabilitiesName
    if not name:
        return
    type_ = _output(spec, name)
    if type_ is None:
        yield _no_output(spec, "predictedProbabilitiesName", name)
        return
    types, result = _wanted(classifier), type_.WhichOneof("Type")
    where = f"output {name!r}"
    if result == "multiArrayType":
        yield note("its type is multiArrayType; dictionaryType is usual", where)
    elif result != "dictionaryType":
        yield warning(f"its type is {result}; probabilities are a dictionaryType", where)
    elif types:
        key = type_.dictionaryType.WhichOneof("KeyType")
        if key not in (None, types[1]):
            yield warning(f"its keys are {key}; for these labels they are {types[1]}", where)


@network_rule
def probability_blob(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """The blob of the probabilities exists."""
    if not isinstance(network, nn.NeuralNetworkClassifier):
        return
    name = network.labelProbabilityLayerName
    if name:
        result = dict.fromkeys(
            blob for layer in networks.layers_of(network) for blob in layer.output
        )
        if name not in result:
            yield error(
                f"labelProbabilityLayerName {name!r} is made by no layer.{hint(name, result)}",
                "classifier",
            )
    elif network.layers and not network.layers[-1].output:
        yield error(
            "labelProbabilityLayerName is empty, and the last layer makes nothing to use instead",
            "classifier",
        )


@model_rule
def regression(spec: model_pb2.Model) -> Problems:
    """The predicted value of a regressor is an output: a number or a multi-array."""
    if spec.WhichOneof("Type") not in REGRESSORS:
        return
    name = spec.description.predictedFeatureName
    type_ = _output(spec, name)
    if type_ is None:
        yield _no_output(spec, "predictedFeatureName", name)
    elif type_.WhichOneof("Type") not in ("doubleType", "multiArrayType"):
        yield warning(
            f"its type is {type_.WhichOneof('Type')}; a regression gives doubleType or "
            "multiArrayType",
            f"output {name!r}",
        )
