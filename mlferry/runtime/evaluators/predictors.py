"""Generalized linear models and tree ensembles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError, SpecError
from mlferry.runtime import features
from mlferry.runtime.evaluators.network import class_labels, classify
from mlferry.runtime.evaluators.registry import (
    CustomClasses,
    Evaluator,
    checked,
    evaluator,
)
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

Vector = NDArray[np.float64]
Score = Callable[[Vector], Vector]


def _regressor(model: model_pb2.Model, score: Score) -> Evaluator:
    """All inputs as one vector, the result under the predicted feature's name."""
    target = model.description.predictedFeatureName or model.description.output[0].name
    return checked(model, lambda data: {target: score(_row(model, data))})


def _classifier(model: model_pb2.Model, labels: Any, chances: Score) -> Evaluator:
    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        return classify(chances(_row(model, data)), labels, model.description)

    return checked(model, run)


def _row(model: model_pb2.Model, data: Mapping[str, Any]) -> Vector:
    return features.vector([data.get(f.name, math.nan) for f in model.description.input])


# ---- generalized linear models ---------------------------------------------------------


def logistic(x: Vector) -> Vector:
    """1 / (1 + exp(-x)), without overflow."""
    result: Vector = 0.5 * np.tanh(0.5 * x) + 0.5
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

    def score(x: Vector) -> Vector:
        if x.size != weights.shape[1]:
            raise PredictionError(f"{x.size} values for {weights.shape[1]} weights")
        result: Vector = weights @ x + offset
        return result

    return score


@evaluator("glmRegressor")
def glm_regressor(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """weights * x + offset, then nothing, the logistic function or the normal one."""
    params = model.glmRegressor
    linear = _linear(params)
    link = (lambda s: s, logistic, probit)[params.postEvaluationTransform]
    return _regressor(model, lambda x: link(linear(x)))


@evaluator("glmClassifier")
def glm_classifier(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """With a reference class (the first), its score is 0; one-vs-rest scores are normalized."""
    params = model.glmClassifier
    linear, labels = _linear(params), class_labels(params)
    link = (logistic, probit)[params.postEvaluationTransform]

    def chances(x: Vector) -> Vector:
        scores = linear(x)
        if params.classEncoding == pp.GLMClassifier.OneVsRest:
            each = link(scores)
            total = float(each.sum())
            normalized: Vector = each / (total or 1.0)
            return normalized
        if scores.size == 1:
            positive = link(scores)
            return np.concatenate([1 - positive, positive])
        return softmax(np.concatenate([[0.0], scores]))

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
    """The base values and, of every tree, the values of the leaf that is reached.

    Raises:
        SpecError: a tree has no root, or a branch names a node that does not exist.
    """
    nodes = {(node.treeId, node.nodeId): node for node in params.nodes}
    size = params.numPredictionDimensions or 1
    base = np.zeros(size)
    base[: len(params.basePredictionValue)] = params.basePredictionValue
    roots = _roots(nodes)

    def score(x: Vector) -> Vector:
        result: Vector = base.copy()
        for root in roots:
            for info in _leaf(nodes, root, x).evaluationInfo:
                if info.evaluationIndex >= size:
                    raise PredictionError(f"a leaf adds to output {info.evaluationIndex}")
                result[info.evaluationIndex] += info.evaluationValue
        return result

    return score


def _roots(nodes: Mapping[tuple[int, int], _Node]) -> list[_Node]:
    children = set()
    for (tree, _), node in nodes.items():
        if node.nodeBehavior == _Node.LeafNode:
            continue
        for child in ((tree, node.trueChildNodeId), (tree, node.falseChildNodeId)):
            if child not in nodes:
                raise SpecError(f"tree {tree} has no node {child[1]}, to which a branch leads")
            children.add(child)
    roots = [node for key, node in nodes.items() if key not in children]
    trees = {tree for tree, _ in nodes}
    if sorted(node.treeId for node in roots) != sorted(trees):
        raise SpecError("every tree of an ensemble has exactly one root")
    return roots


def _leaf(nodes: Mapping[tuple[int, int], _Node], node: _Node, x: Vector) -> _Node:
    for _ in range(len(nodes)):
        if node.nodeBehavior == _Node.LeafNode:
            return node
        if node.branchFeatureIndex >= x.size:
            raise PredictionError(f"a tree reads value {node.branchFeatureIndex} of {x.size}")
        value = float(x[node.branchFeatureIndex])
        goes = (
            node.missingValueTracksTrueChild
            if math.isnan(value)
            else _BRANCHES[node.nodeBehavior](value, node.branchFeatureValue)
        )
        child = node.trueChildNodeId if goes else node.falseChildNodeId
        node = nodes[(node.treeId, child)]
    raise PredictionError(f"tree {node.treeId} runs in a circle")


_TRANSFORMS: tuple[Score, ...] = (
    lambda x: x,
    softmax,
    logistic,
    lambda x: softmax(np.concatenate([[0.0], x])),
)


@evaluator("treeEnsembleRegressor")
def tree_ensemble_regressor(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """The sum over the trees, then the transform."""
    params = model.treeEnsembleRegressor
    forest, transform = _forest(params.treeEnsemble), _TRANSFORMS[params.postEvaluationTransform]
    return _regressor(model, lambda x: transform(forest(x)))


@evaluator("treeEnsembleClassifier")
def tree_ensemble_classifier(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """One value for two labels is the chance of the second."""
    params = model.treeEnsembleClassifier
    forest, transform = _forest(params.treeEnsemble), _TRANSFORMS[params.postEvaluationTransform]
    labels = class_labels(params)

    def chances(x: Vector) -> Vector:
        values = transform(forest(x))
        if values.size == 1 and len(labels) == 2:
            return np.concatenate([1 - values, values])
        return values

    return _classifier(model, labels, chances)
