"""Generalized linear models and tree ensembles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry import limits
from mlferry.errors import PredictionError, SpecError
from mlferry.runtime import features
from mlferry.runtime.evaluators.network import classify
from mlferry.runtime.evaluators.registry import CustomClasses, Evaluator, checked, evaluator
from mlferry.spec.networks import class_labels
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

Vector = NDArray[np.float64]
Score = Callable[[Vector], Vector]


def regressor(model: model_pb2.Model, score: Score) -> Evaluator:
    """Take all inputs as one vector, and give the result under the predicted feature's name."""
    target = model.description.predictedFeatureName or model.description.output[0].name
    return checked(model, lambda data: {target: score(row(model, data))})


def _classifier(
    model: model_pb2.Model, labels: Sequence[int] | Sequence[str], chances: Score
) -> Evaluator:
    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        values = chances(row(model, data))
        if np.isnan(values).any():
            raise PredictionError(NO_NUMBER)
        return classify(values, labels, model.description)

    return checked(model, run)


NO_NUMBER = (
    "there is no likeliest class: what the model computes is not a number. Look for NaN or "
    "infinity among the inputs"
)


def row(model: model_pb2.Model, data: Mapping[str, Any]) -> Vector:
    """All inputs of a model as one vector, in the order of its description."""
    return features.vector([data.get(f.name, math.nan) for f in model.description.input])


# ---- generalized linear models ---------------------------------------------------------


def logistic(x: Vector) -> Vector:
    """1 / (1 + exp(-x)), without overflow, and accurate near 0."""
    small = np.exp(-np.abs(x))
    result: Vector = np.where(x >= 0, 1.0, small) / (1 + small)
    return result


def probit(x: Vector) -> Vector:
    """The standard normal distribution function."""
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])


def _linear(params: pp.GLMRegressor | pp.GLMClassifier) -> Score:
    rows = [list(row.value) for row in params.weights]
    if not rows or len({len(row) for row in rows}) != 1:
        raise SpecError("a generalized linear model needs weights, as many for every output")
    weights = np.array(rows)
    offset = np.array(params.offset or [0.0] * len(rows))
    if offset.size != len(rows):
        raise SpecError(f"a linear model has {len(rows)} rows of weights and {offset.size} offsets")

    def score(x: Vector) -> Vector:
        if x.size != weights.shape[1]:
            raise PredictionError(f"{x.size} values for {weights.shape[1]} weights")
        result: Vector = weights @ x + offset
        return result

    return score


@evaluator("glmRegressor")
def glmregressor(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """weights * x + offset, then nothing, the logistic function or the normal one."""
    params = model.glmRegressor
    linear = _linear(params)
    link = (lambda s: s, logistic, probit)[params.postEvaluationTransform]
    return regressor(model, lambda x: link(linear(x)))


@evaluator("glmClassifier")
def glm_classifier(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """One row of weights per class, or for all but the first.

    For two classes there is one row, in both encodings, whose link gives the chance of the
    second class. With a reference class, the first, the scores beside its 0 go through softmax;
    one-vs-rest chances are divided by their sum, as scikit-learn does.

    Raises:
        SpecError: the normal distribution function links more than two classes, for which the
            format does not define it.
    """
    params = model.glmClassifier
    linear, labels = _linear(params), class_labels(params)
    if params.postEvaluationTransform == pp.GLMClassifier.Probit and len(labels) > 2:
        raise SpecError(f"Probit is defined for two classes; the model has {len(labels)}")
    one_vs_rest = params.classEncoding == pp.GLMClassifier.OneVsRest
    link = (logistic, probit)[params.postEvaluationTransform]

    def chances(x: Vector) -> Vector:
        scores = linear(x)
        if scores.size == 1:
            positive = link(scores)
            return np.concatenate([link(-scores), positive])
        if not one_vs_rest:
            return softmax(np.concatenate([[0.0], scores]))
        if link is logistic:  # by logarithms: far from every class all chances would be 0
            return softmax(-np.logaddexp(0.0, -scores))
        each = link(scores)
        normalized: Vector = each / each.sum()
        return normalized

    return _classifier(model, labels, chances)


def softmax(x: Vector) -> Vector:
    """exp(x) over its sum."""
    raised: Vector = np.exp(x - np.max(x))
    result: Vector = raised / raised.sum()
    return result


# ---- trees -----------------------------------------------------------------------------

_Node = pp.TreeEnsembleParameters.TreeNode
_BRANCHES: tuple[Callable[[float, float], bool], ...] = (
    lambda value, limit: value <= limit,
    lambda value, limit: value < limit,
    lambda value, limit: value >= limit,
    lambda value, limit: value > limit,
    lambda value, limit: value == limit,
    lambda value, limit: value != limit,
)


def _forest(params: pp.TreeEnsembleParameters) -> Score:
    """The sum of the values of the leaves reached, one per tree, and of the base values.

    Trees whose numbers all fit float32 are added in float32, as Core ML's compiler (according to
    coremltools' converter of XGBoost) and the libraries of such trees do. This decides between
    classes with equal votes.
    """
    nodes = {(node.treeId, node.nodeId): node for node in params.nodes}
    size = params.numPredictionDimensions or 1
    values = np.array(params.basePredictionValue, np.float64)
    limits.check_blob((size,))
    dtype = np.float32 if _is_float32(params) else np.float64
    base = (values if values.size else np.zeros(size)).astype(dtype)
    by_id, roots = _read(nodes), _roots(nodes)

    def score(x: Vector) -> Vector:
        result, row = np.zeros(size, dtype), x.tolist()
        for root in roots:
            for index, value in _leaf(by_id, root, row):
                result[index] += dtype(value)
        total: Vector = (result + base).astype(np.float64)
        return total

    return score


@dataclass(frozen=True)
class _Branch:
    """A node that is not a leaf; a leaf is the list of what it adds."""

    goes: Callable[[float, float], bool]
    column: int
    limit: float
    true: tuple[int, int]
    false: tuple[int, int]
    missing: bool


_Leaf = list[tuple[int, float]]


def _read(nodes: Mapping[tuple[int, int], _Node]) -> dict[tuple[int, int], _Branch | _Leaf]:
    """The nodes as plain objects: the fields of messages are slow to read."""
    by_id: dict[tuple[int, int], _Branch | _Leaf] = {}
    for key, node in nodes.items():
        if node.nodeBehavior == _Node.LeafNode:
            by_id[key] = [(i.evaluationIndex, i.evaluationValue) for i in node.evaluationInfo]
            continue
        by_id[key] = _Branch(
            _BRANCHES[node.nodeBehavior],
            node.branchFeatureIndex,
            node.branchFeatureValue,
            (key[0], node.trueChildNodeId),
            (key[0], node.falseChildNodeId),
            node.missingValueTracksTrueChild,
        )
    return by_id


def _is_float32(params: pp.TreeEnsembleParameters) -> bool:
    """Whether float32 holds every number of the trees."""
    numbers = [node.branchFeatureValue for node in params.nodes]
    numbers += [info.evaluationValue for node in params.nodes for info in node.evaluationInfo]
    array = np.array([*numbers, *params.basePredictionValue])
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array, array.astype(np.float32), equal_nan=True))


def _roots(nodes: Mapping[tuple[int, int], _Node]) -> list[tuple[int, int]]:
    """The node of each tree that is no child; the rules of the format see to the rest."""
    branches = [
        (tree, node) for (tree, _), node in nodes.items() if node.nodeBehavior != _Node.LeafNode
    ]
    children = {(tree, node.trueChildNodeId) for tree, node in branches}
    children |= {(tree, node.falseChildNodeId) for tree, node in branches}
    return [key for key in nodes if key not in children]


def _leaf(
    nodes: Mapping[tuple[int, int], _Branch | _Leaf], key: tuple[int, int], x: Sequence[float]
) -> _Leaf:
    while True:
        node = nodes[key]
        if isinstance(node, list):
            return node
        if node.column >= len(x):
            raise PredictionError(f"a tree reads value {node.column} of {len(x)}")
        value = x[node.column]
        goes = node.missing if math.isnan(value) else node.goes(value, node.limit)
        key = node.true if goes else node.false


_TRANSFORMS: tuple[Score, ...] = (
    lambda x: x,
    softmax,
    logistic,
    lambda x: softmax(np.concatenate([[0.0], x])),
)


@evaluator("treeEnsembleRegressor")
def tree_ensembleregressor(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """The sum over the trees, then the transform."""
    params = model.treeEnsembleRegressor
    forest, transform = _forest(params.treeEnsemble), _TRANSFORMS[params.postEvaluationTransform]
    return regressor(model, lambda x: transform(forest(x)))


@evaluator("treeEnsembleClassifier")
def tree_ensemble_classifier(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """One value for two labels is the chance of the second; without labels they count from 0."""
    params = model.treeEnsembleClassifier
    forest, transform = _forest(params.treeEnsemble), _TRANSFORMS[params.postEvaluationTransform]
    size = params.treeEnsemble.numPredictionDimensions or 1
    labels = class_labels(params) or list(range(2 if size == 1 else size))

    def chances(x: Vector) -> Vector:
        values = transform(forest(x))
        if values.size == 1 and len(labels) == 2:
            return np.concatenate([1 - values, values])
        return values

    return _classifier(model, labels, chances)
