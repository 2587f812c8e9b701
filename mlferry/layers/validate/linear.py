"""Rules about generalized linear models, as in Apple's checker."""

from __future__ import annotations

from mlferry.layers.validate.rules import kind_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problems, error, warning
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp


@kind_rule("glmRegressor", "glmClassifier")
def linear_weights(spec: model_pb2.Model, params: pp.GLMRegressor | pp.GLMClassifier) -> Problems:
    """Rows of weights have the same length, and each has an offset."""
    if not params.weights:
        yield error("it has no weights")
    if any(not row.value for row in params.weights):
        yield error("a row of its weights is empty")
    if len({len(row.value) for row in params.weights}) > 1:
        yield error("its rows of weights differ in length")
    if len(params.offset) not in (0, len(params.weights)):
        result = f"{len(params.offset)} offsets for {len(params.weights)} rows of weights"
        yield error(result)
    elif not params.offset:
        yield warning(f"it has no offsets; write a 0 for each of {len(params.weights)} rows")


@kind_rule("glmClassifier")
def linear_classes(spec: model_pb2.Model, params: pp.GLMClassifier) -> Problems:
    """There is a row for every class but the first, or, one-vs-rest, for every one of many."""
    classes = len(networks.class_labels(params))
    rows, one_vs_rest = len(params.weights), params.classEncoding == pp.GLMClassifier.OneVsRest
    expected = classes if one_vs_rest and classes != 2 else classes - 1
    if one_vs_rest and classes == rows == 2:
        yield warning(
            "one-vs-rest has one row of weights for two classes, that of the second; it has 2"
        )
    elif classes and rows != expected:
        yield error(f"{rows} rows of weights for {classes} classes; there are {expected}")
    if params.postEvaluationTransform == pp.GLMClassifier.Probit and classes > 2:
        yield error(f"Probit is defined for two classes; there are {classes}")
