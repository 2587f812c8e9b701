"""Ensembles of trees, for regression and classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlferry import limits
from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.ops.forest import (
    NODE_BYTES,
    Forest,
    numbers,
    read_forest,
    read_forest_5,
)
from mlferry.converters.onnx.ml.ops.linear import labels_of
from mlferry.converters.onnx.ml.ops.transforms import (
    TRANSFORMS,
    no_transform,
    probit,
    refused_transform,
    transform_of,
    transformed,
)
from mlferry.converters.onnx.ml.registry import op
from mlferry.converters.onnx.ml.values import Cell, Classes, Held, Label, Labels, Row, Scores
from mlferry.errors import ConversionError
from mlferry.spec.proto import predictors_pb2 as pp


@dataclass(frozen=True)
class _Ensemble:
    """Trees, the row that they read, and what becomes of the sums of what their leaves add.

    Attributes:
        base: what the sums start with; 0 if it is empty.
        transform: the name of what is computed of the sums.
    """

    flow: Flow
    node: Node
    row: Row
    forest: Forest
    base: Sequence[float]
    transform: str

    def sums(self, trees: pp.TreeEnsembleParameters, size: int, *shape: int) -> Row:
        """Two or more sums, by a regressor."""
        message = pp.TreeEnsembleRegressor(treeEnsemble=trees)
        name = f"{self.node.name}_value"
        return self.flow.to_row(
            "treeEnsembleRegressor", message, self.row, name, size, shape=shape or None
        )

    def only_sum(self, trees: pp.TreeEnsembleParameters) -> Cell:
        """The sum, by a regressor."""
        message = pp.TreeEnsembleRegressor(treeEnsemble=trees)
        name = f"{self.node.name}_value"
        return self.flow.to_cell("treeEnsembleRegressor", message, self.row, name, "double")


# ---- regression ------------------------------------------------------------------------


@op("TreeEnsembleRegressor")
def tree_ensemble_regressor(flow: Flow, node: Node, x: Held) -> Held:
    """The sums, or averages, of what the leaves add."""
    row = flow.sample(x)
    forest, base = read_forest(node, row, "target"), numbers(node, "base_values")
    ensemble = _Ensemble(flow, node, row, forest, base, transform_of(node))
    aggregate = node.attrs.get("aggregate_function", "SUM")
    return _regressor(ensemble, int(node.attrs.get("n_targets", 1)), aggregate)


@op("TreeEnsemble")
def tree_ensemble(flow: Flow, node: Node, x: Held) -> Held:
    """The op of opset 5: branches, and leaves apart from them."""
    row = flow.sample(x)
    forest = read_forest_5(node, row)
    number = int(node.attrs.get("aggregate_function", 1))
    transform = int(node.attrs.get("post_transform", 0))
    if number not in range(4) or transform not in range(len(TRANSFORMS)):
        raise ConversionError(f"aggregate_function={number}, post_transform={transform}")
    name = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")[transform]
    if name not in ("NONE", "PROBIT"):
        raise ConversionError(
            f"post_transform={transform} is {name} in ONNX, and onnxruntime numbers it "
            "differently: write 0, and a separate node after it"
        )
    ensemble = _Ensemble(flow, node, row, forest, (), name)
    aggregate = ("AVERAGE", "SUM", "MIN", "MAX")[number]
    return _regressor(ensemble, int(node.attrs.get("n_targets", 1)), aggregate)


def _regressor(ensemble: _Ensemble, size: int, aggregate: str) -> Held:
    flow, node, forest, base = ensemble.flow, ensemble.node, ensemble.forest, ensemble.base
    transform = ensemble.transform
    if aggregate not in ("SUM", "AVERAGE", "MIN", "MAX"):
        raise ConversionError(f"aggregate_function={aggregate!r}: it is SUM, AVERAGE, MIN or MAX")
    if size < 1 or len(base) not in (0, size):
        raise ConversionError(f"{len(base)} base_values for {size} targets")
    forest.check_targets(size)
    output: Held
    if aggregate in ("MIN", "MAX"):
        output = _extreme(ensemble, size, aggregate)
    else:
        trees = forest.message(size, base, 1 / forest.trees if aggregate == "AVERAGE" else 1.0)
        if size == 1 and transform != "PROBIT":
            no_transform(node)
            return ensemble.only_sum(trees)
        output = ensemble.sums(trees, size)
    if size > 1:
        return transformed(flow, output, size, transform)
    if transform == "PROBIT":
        return probit(flow, output, size)
    no_transform(node)
    return output


def _extreme(ensemble: _Ensemble, size: int, aggregate: str) -> Held:
    """The least or the largest of what trees add: a score for each tree and target, and a network.

    Raises:
        ConversionError: a leaf adds nothing to a target: it is not a candidate in its tree.
    """
    flow, forest = ensemble.flow, ensemble.forest
    for adds in forest.leaves.values():
        if len({target for target, _ in adds}) != size:  # none is outside of them
            raise ConversionError(
                f"a leaf does not add to each of {size} targets: with {aggregate}, runtimes do not "
                "agree on what that means"
            )
    ranks = {tree: rank for rank, tree in enumerate(dict.fromkeys(t for t, _ in forest.order))}
    apart = Forest(forest.branches, {}, forest.order, forest.trees)
    for (tree, leaf), adds in forest.leaves.items():
        apart.leaves[tree, leaf] = [(ranks[tree] * size + target, v) for target, v in adds]
    count, shape = len(ranks) * size, (1, len(ranks), size)
    limits.check("weights", NODE_BYTES * count, "the scores of its trees take bytes:")
    trees = apart.message(count, ())
    scores: Held
    if count == 1:
        scores = flow.plain("Reshape", [ensemble.only_sum(trees), np.array(shape)], shape)
    else:
        scores = ensemble.sums(trees, count, *shape)
    kind = "ReduceMin" if aggregate == "MIN" else "ReduceMax"
    output: Held = flow.plain(kind, [scores], (1, size), axes=[1], keepdims=0)
    if ensemble.base:
        start = np.array([ensemble.base], np.float32)
        output = flow.plain("Add", [output, start], (1, size))
    return output


# ---- classification --------------------------------------------------------------------


@op("TreeEnsembleClassifier")
def tree_ensemble_classifier(flow: Flow, node: Node, x: Held) -> tuple[Label, Scores]:
    """The result in onnxruntime; for two classes that depends on the signs of the weights."""
    row = flow.sample(x)
    labels = labels_of(node, "classlabels_strings", "classlabels_int64s")
    forest = read_forest(node, row, "class")
    forest.check_targets(len(labels))
    base = numbers(node, "base_values")
    classifier = _Classifier(flow, node, row, forest, base, transform_of(node), labels)
    classes = classifier.of_two() if len(labels) == 2 else classifier.of_many()
    return Label(classes), Scores(classes)


@dataclass(frozen=True)
class _Classifier(_Ensemble):
    labels: Labels

    def of_two(self) -> Classes:
        """Leaves that add to one score alone, s, with the base value.

        The second class is predicted where s is above 0.5, if no weight is below 0; else above 0.
        The scores are 1 - s and s, or -s and s; LOGISTIC makes 1 - p and p of s. Where leaves add
        to the second score, the first is 0.
        """
        base, forest, transform = self.base, self.forest, self.transform
        targets = forest.targets or {0}
        if len(targets) > 1:
            raise ConversionError(
                "its leaves add to the scores of both classes: onnxruntime predicts the second "
                "where its score is above 0, ONNX where it is the larger one. Write the chance of "
                "the second class alone, as skl2onnx does"
            )
        if len(base) == 2 or (base and targets == {1}):
            raise ConversionError(
                f"{len(base)} base_values for two classes and weights of one: runtimes do not "
                "agree on it"
            )
        if not forest.always_adds(max(targets)):
            raise ConversionError(
                "a leaf of every tree adds nothing: the prediction is not defined then"
            )
        all_positive = min(forest.weights, default=0.0) >= 0
        start = base[0] if base else 0.0
        (target,) = targets
        if target == 0 and transform == "PROBIT":
            raise refused_transform(self.node, transform)
        single = forest.message(1, [start], places={target: [(0, 1.0)]})
        if target == 0 and transform == "LOGISTIC":
            logistic = self._add(single, "Regression_Logistic")
            return self._with_label_of(single, logistic) if all_positive else logistic
        if target == 0 and all_positive:
            # 1 - s and s add up to 1; they are not shares where s is above 1
            return self._add(single)
        if transform == "LOGISTIC":
            raise ConversionError(
                "LOGISTIC with weights of the second class alone gives scores that are not "
                "chances; write them as weights of the first"
            )
        first = -1.0 if target == 0 else 0.0
        both = forest.message(2, [first * start, start], places={target: [(0, first), (1, 1.0)]})
        if target == 1 and transform in ("SOFTMAX_ZERO", "PROBIT"):
            return self._with_scores(self._add(single if all_positive else both), both)
        is_softmax = transform == "SOFTMAX" and target == 1
        scores = self._add(both, "Classification_SoftMax" if is_softmax else "NoTransform")
        return self._with_label_of(single, scores) if all_positive else scores

    def of_many(self) -> Classes:
        """The class with the largest score.

        Raises:
            ConversionError: without base values, a class that no leaf adds to is not a candidate
                for onnxruntime; that matters where scores may be below 0.
        """
        base, forest, labels = self.base, self.forest, self.labels
        size = len(labels)
        if len(base) not in (0, size):
            raise ConversionError(f"{len(base)} base_values for {size} classes")
        if not base and min(forest.weights, default=0.0) < 0:
            rare = [labels[i] for i in range(size) if not forest.always_adds(i)]
            if rare:
                raise ConversionError(
                    f"no leaf may add to the score of {rare[0]!r}: onnxruntime ignores it then, "
                    "ONNX takes it as 0. Write base_values, of 0"
                )
        trees = forest.message(size, base)
        if self.transform == "SOFTMAX":
            return self._add(trees, "Classification_SoftMax")
        plain = self._add(trees)
        return plain if self.transform == "NONE" else self._with_scores(plain, trees)

    def _add(self, trees: pp.TreeEnsembleParameters, transform: str = "NoTransform") -> Classes:
        """A classifier of Core ML, whose scores are shares where it transforms them."""
        message = pp.TreeEnsembleClassifier(treeEnsemble=trees, postEvaluationTransform=transform)
        return self.flow.classifier(
            self.node,
            "treeEnsembleClassifier",
            message,
            self.row,
            self.labels,
            is_distribution=transform != "NoTransform",
        )

    def _with_label_of(self, trees: pp.TreeEnsembleParameters, classes: Classes) -> Classes:
        """Scores of one classifier, the predicted class of another one."""
        label = self._add(trees)
        return replace(
            classes, add_label=label.add_label, add_both=None, add_scores=classes.add_both
        )

    def _with_scores(self, label: Classes, trees: pp.TreeEnsembleParameters) -> Classes:
        """The predicted class of a classifier; scores by a regressor and a network."""
        size = len(self.labels)

        def scores() -> Row:
            return self.flow.row(
                transformed(self.flow, self.sums(trees, size), size, self.transform)
            )

        return Classes(self.labels, label.add_label, scores)
