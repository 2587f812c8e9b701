"""Ensembles of trees.

`x <= threshold` is exact here too: onnxruntime compares float32 numbers, Core ML the same ones as
doubles. Nodes keep the order of the trees, in which their float32 numbers are added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mlferry import limits
from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
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

_TreeNode = pp.TreeEnsembleParameters.TreeNode
_MODES = {
    "BRANCH_LEQ": _TreeNode.BranchOnValueLessThanEqual,
    "BRANCH_LT": _TreeNode.BranchOnValueLessThan,
    "BRANCH_GTE": _TreeNode.BranchOnValueGreaterThanEqual,
    "BRANCH_GT": _TreeNode.BranchOnValueGreaterThan,
    "BRANCH_EQ": _TreeNode.BranchOnValueEqual,
    "BRANCH_NEQ": _TreeNode.BranchOnValueNotEqual,
    "LEAF": _TreeNode.LeafNode,
}
_NUMBERED = (*(name for name in _MODES if name != "LEAF"), "BRANCH_MEMBER")

_NODE_BYTES = 64
_MOST_NODES = 2**31  # ids are 32 bits in onnxruntime

Key = tuple[int, int]
Weights = Mapping[Key, Sequence[tuple[int, float]]]


@dataclass
class Branch:
    """A node that is not a leaf."""

    mode: str
    column: int
    threshold: float
    true: Key
    false: Key
    missing_is_true: bool


@dataclass
class Forest:
    """Trees as Core ML has them: every node is reached from its root, on one way.

    Attributes:
        branches: nodes that are not leaves, by tree and node.
        leaves: what each leaf adds, by tree and node: pairs of a score and a number.
        order: of the nodes, tree by tree: in it they are added.
        trees: how many there are.
    """

    branches: dict[Key, Branch] = field(default_factory=dict)
    leaves: dict[Key, list[tuple[int, float]]] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    trees: int = 0

    @property
    def weights(self) -> list[float]:
        """Of all leaves."""
        return [value for adds in self.leaves.values() for _, value in adds]

    @property
    def targets(self) -> set[int]:
        """The scores that leaves add to."""
        return {target for adds in self.leaves.values() for target, _ in adds}

    def message(
        self,
        size: int,
        base: Sequence[float],
        scale: float = 1.0,
        places: Mapping[int, Sequence[tuple[int, float]]] | None = None,
    ) -> pp.TreeEnsembleParameters:
        """Core ML's parameters.

        Args:
            size: the number of scores.
            base: what each of them starts with, by default 0.
            scale: of what leaves add.
            places: for a score of ONNX's, those of Core ML's that it adds to, with factors.
        """
        tree_ensemble_parameters = pp.TreeEnsembleParameters(numPredictionDimensions=size)
        tree_ensemble_parameters.basePredictionValue.extend(base)
        for tree, node in self.order:
            if (tree, node) in self.branches:
                branch = self.branches[tree, node]
                tree_ensemble_parameters.nodes.add(
                    treeId=tree,
                    nodeId=node,
                    nodeBehavior=_MODES[branch.mode],
                    branchFeatureIndex=branch.column,
                    branchFeatureValue=branch.threshold,
                    trueChildNodeId=branch.true[1],
                    falseChildNodeId=branch.false[1],
                    missingValueTracksTrueChild=branch.missing_is_true,
                )
                continue
            adds = self.leaves[tree, node]
            leaf = tree_ensemble_parameters.nodes.add(
                treeId=tree, nodeId=node, nodeBehavior=_TreeNode.LeafNode
            )
            sums: dict[int, float] = {}
            for target, value in adds:
                for place, factor in (places or {}).get(target, [(target, 1.0)]):
                    sums[place] = sums.get(place, 0.0) + value * factor * scale
            for place, value in sorted(sums.items()) or [(0, 0.0)]:
                leaf.evaluationInfo.add(evaluationIndex=place, evaluationValue=value)
        return tree_ensemble_parameters

    def always_adds(self, target: int) -> bool:
        """Whether some tree adds to a score whatever the input."""
        trees: dict[int, bool] = {}
        for (tree, _), adds in self.leaves.items():
            has = any(place == target for place, _ in adds)
            trees[tree] = trees.get(tree, True) and has
        return any(trees.values())


# ---- reading ---------------------------------------------------------------------------


def _numbers(node: Node, name: str) -> list[float]:
    """Floats of an attribute, or of the tensor that may hold them as doubles."""
    tensor = node.attrs.get(f"{name}_as_tensor")
    match = node.attrs.get(name, ())
    return [float(v) for v in (match if tensor is None else np.asarray(tensor).ravel())]


def _forest(node: Node, row: Row, kind: str) -> Forest:
    """The trees of the two older ops; `kind` is what leaves add to, "target" or "class".

    Raises:
        ConversionError: attributes do not fit, or a tree is none that Core ML has.
    """
    node.attrs.get("nodes_hitrates"), node.attrs.get("nodes_hitrates_as_tensor")
    columns = {
        name: list(node.attrs.get(f"nodes_{name}", ()))
        for name in ("treeids", "nodeids", "modes", "featureids", "truenodeids", "falsenodeids")
    }
    values = _numbers(node, "nodes_values")
    count = len(columns["treeids"])
    missing = list(node.attrs.get("nodes_missing_value_tracks_true", ()) or [0] * count)
    if {len(c) for c in columns.values()} != {count} or not len(values) == len(missing) == count:
        raise ConversionError("its nodes_* attributes are of several lengths")
    weights = _leaf_weights(node, kind)
    keys = list(zip(columns["treeids"], columns["nodeids"], strict=True))
    index = {key: i for i, key in enumerate(keys)}
    if len(index) < count:
        raise ConversionError("a tree has two nodes of the same id")
    roots = [key for i, key in enumerate(keys) if i == 0 or keys[i - 1][0] != key[0]]
    if len({tree for tree, _ in roots}) < len(roots):
        raise ConversionError("the nodes of a tree do not stand together")
    forest = Forest(trees=len(roots))
    stack = roots[::-1]
    while stack:
        key = stack.pop()
        if key not in index:
            raise ConversionError(f"tree {key[0]} has no node {key[1]}, to which a branch leads")
        if key in forest.branches or key in forest.leaves:
            raise ConversionError(
                f"node {key[1]} of tree {key[0]} is reached on two ways; Core ML has trees only"
            )
        forest.order.append(key)
        i = index[key]
        mode = columns["modes"][i]
        if mode == "LEAF":
            forest.leaves[key] = list(weights.get(key, ()))
            continue
        true, false = ((key[0], int(columns[c][i])) for c in ("truenodeids", "falsenodeids"))
        forest.branches[key] = _branch(
            mode, int(columns["featureids"][i]), values[i], true, false, bool(missing[i]), row
        )
        stack += [false, true]
    lost = index.keys() - set(forest.order)
    if lost:
        tree, place = min(lost)
        raise ConversionError(f"no branch leads to node {place} of tree {tree}")
    if any(not 0 <= n < _MOST_NODES for key in forest.order for n in key):
        raise ConversionError(f"ids of trees and nodes go from 0 to {_MOST_NODES - 1}")
    return forest


def _branch(
    mode: str, column: int, threshold: float, true: Key, false: Key, missing: bool, row: Row
) -> Branch:
    if mode not in _MODES:
        raise ConversionError(
            f"a node of mode {mode!r}; Core ML has {', '.join(m for m in _MODES if m != 'LEAF')}"
        )
    if not 0 <= column < row.size:
        raise ConversionError(f"a node reads column {column} of {row.size}")
    if math.isnan(threshold):
        raise ConversionError("a node compares with NaN")
    # NaN is not equal to anything, and so goes the way of true in onnxruntime
    return Branch(mode, column, threshold, true, false, missing or mode == "BRANCH_NEQ")


def _leaf_weights(node: Node, kind: str) -> Weights:
    ids, nodes, trees = (
        [int(v) for v in node.attrs.get(f"{kind}_{name}", ())]
        for name in ("ids", "nodeids", "treeids")
    )
    values = _numbers(node, f"{kind}_weights")
    if not len(ids) == len(nodes) == len(trees) == len(values):
        raise ConversionError(f"its {kind}_* attributes are of several lengths")
    entries: dict[Key, list[tuple[int, float]]] = {}
    twice = len(set(zip(trees, nodes, ids, strict=True))) < len(ids)
    if twice:
        raise ConversionError(
            "a leaf adds to the same score twice: onnxruntime takes one of them, ONNX the sum"
        )
    for target, tree_node, tree, value in zip(ids, nodes, trees, values, strict=True):
        entries.setdefault((tree, tree_node), []).append((target, value))
    return entries


def _check_targets(forest: Forest, size: int) -> None:
    outside = [target for target in forest.targets if not 0 <= target < size]
    if outside:
        raise ConversionError(f"a leaf adds to score {outside[0]} of {size}")


# ---- regression ------------------------------------------------------------------------


@op("TreeEnsembleRegressor")
def tree_ensemble_regressor(flow: Flow, node: Node, x: Held) -> Row | Cell | Held:
    """The sums, or averages, of what the leaves add."""
    row = flow.sample(x)
    forest = _forest(node, row, "target")
    base = _numbers(node, "base_values")
    node.attrs.get("base_values")
    aggregate = node.attrs.get("aggregate_function", "SUM")
    transform = transform_of(node)
    return _regressor(
        flow, node, row, forest, int(node.attrs.get("n_targets", 1)), base, aggregate, transform
    )


def _regressor(
    flow: Flow,
    node: Node,
    row: Row,
    forest: Forest,
    size: int,
    base: Sequence[float],
    aggregate: str,
    transform: str,
) -> Held:
    if aggregate not in ("SUM", "AVERAGE", "MIN", "MAX"):
        raise ConversionError(f"aggregate_function={aggregate!r}: it is SUM, AVERAGE, MIN or MAX")
    if size < 1 or len(base) not in (0, size):
        raise ConversionError(f"{len(base)} base_values for {size} targets")
    _check_targets(forest, size)
    if aggregate in ("MIN", "MAX"):
        output = _extreme(flow, node, row, forest, size, base, aggregate)
        return _finished(flow, output, node, size, transform)
    scale = 1 / forest.trees if aggregate == "AVERAGE" else 1.0
    message = pp.TreeEnsembleRegressor(treeEnsemble=forest.message(size, base, scale))
    name = f"{node.name}_value"
    if size == 1 and transform != "PROBIT":
        no_transform(node)
        return flow.to_cell("treeEnsembleRegressor", message, row, name, "double")
    output = flow.to_row("treeEnsembleRegressor", message, row, name, size)
    return _finished(flow, output, node, size, transform)


def _finished(flow: Flow, sums: Held, node: Node, size: int, transform: str) -> Held:
    """The result of `post_transform` for the sums, [1, size]."""
    if size == 1:
        if transform == "PROBIT":
            return probit(flow, sums, size)
        no_transform(node)
    return transformed(flow, sums, size, transform)


def _extreme(
    flow: Flow,
    node: Node,
    row: Row,
    forest: Forest,
    size: int,
    base: Sequence[float],
    aggregate: str,
) -> Held:
    """The least or the largest of what trees add: a score for each tree and target, and a network.

    Raises:
        ConversionError: a leaf adds nothing to a target: it is not a candidate in its tree.
    """
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
    count = len(ranks) * size
    limits.check("weights", _NODE_BYTES * count, "the scores of its trees take bytes:")
    message = pp.TreeEnsembleRegressor(treeEnsemble=apart.message(count, ()))
    name = f"{node.name}_value"
    shape = (1, len(ranks), size)
    if count == 1:
        cell = flow.to_cell("treeEnsembleRegressor", message, row, name, "double")
        scores: Held = flow.plain("Reshape", [cell, np.array(shape)], shape)
    else:
        scores = flow.to_row("treeEnsembleRegressor", message, row, name, count, shape=shape)
    kind = "ReduceMin" if aggregate == "MIN" else "ReduceMax"
    output: Held = flow.plain(kind, [scores], (1, size), axes=[1], keepdims=0)
    if base:
        output = flow.plain("Add", [output, np.array([base], np.float32)], (1, size))
    return output


@op("TreeEnsemble")
def tree_ensemble(flow: Flow, node: Node, x: Held) -> Held:
    """The op of opset 5: branches, and leaves apart from them."""
    row = flow.sample(x)
    node.attrs.get("nodes_hitrates")
    names = ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    columns = {name: [int(v) for v in node.attrs.get(f"nodes_{name}", ())] for name in names}
    modes = [int(v) for v in np.asarray(node.attrs.get("nodes_modes", ())).ravel()]
    splits = [float(v) for v in np.asarray(node.attrs.get("nodes_splits", ())).ravel()]
    count = len(modes)
    missing = list(node.attrs.get("nodes_missing_value_tracks_true", ()) or [0] * count)
    if {len(c) for c in columns.values()} != {count} or not len(splits) == len(missing) == count:
        raise ConversionError("its nodes_* attributes are of several lengths")
    targets = [int(v) for v in node.attrs.get("leaf_targetids", ())]
    weights = [float(v) for v in np.asarray(node.attrs.get("leaf_weights", ())).ravel()]
    if len(targets) != len(weights):
        raise ConversionError("its leaf_* attributes are of several lengths")
    sets = _members(node, modes)
    roots = [int(v) for v in node.attrs.get("tree_roots", ())]
    forest = Forest(trees=len(roots))
    for tree, root in enumerate(roots):
        _check_tree(tree, root, columns, len(modes), len(targets))
        _grow(forest, tree, root, columns, modes, splits, missing, targets, weights, sets, row)
    number = int(node.attrs.get("aggregate_function", 1))
    transform = int(node.attrs.get("post_transform", 0))
    if number not in range(4) or transform not in range(len(TRANSFORMS)):
        raise ConversionError(f"aggregate_function={number}, post_transform={transform}")
    size = int(node.attrs.get("n_targets", 1))
    name = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")[transform]
    if name not in ("NONE", "PROBIT"):
        raise ConversionError(
            f"post_transform={transform} is {name} in ONNX, and onnxruntime counts otherwise: "
            "write 0 and a node of its own behind it"
        )
    aggregate = ("AVERAGE", "SUM", "MIN", "MAX")[number]
    return _regressor(flow, node, row, forest, size, (), aggregate, name)


_MEMBER = _NUMBERED.index("BRANCH_MEMBER")


def _members(node: Node, modes: Sequence[int]) -> dict[int, list[float]]:
    """The values of each node that tests membership; they stand in a row, with NaN between them."""
    values = [float(v) for v in np.asarray(node.attrs.get("membership_values", ())).ravel()]
    sets: list[list[float]] = [[]]
    for value in values:
        if math.isnan(value):
            sets.append([])
        else:
            sets[-1].append(value)
    if sets[-1] == []:
        sets.pop()
    places = [place for place, mode in enumerate(modes) if mode == _MEMBER]
    if len(places) != len(sets) or [] in sets:
        raise ConversionError(
            f"{len(sets)} sets of membership_values for {len(places)} nodes of BRANCH_MEMBER"
        )
    return dict(zip(places, sets, strict=True))


def _check_tree(
    tree: int, root: int, columns: Mapping[str, list[int]], nodes: int, leaves: int
) -> None:
    """Refuse what is not a tree: a node that is reached on two ways, or on a way through itself.

    Raises:
        ConversionError: it is none.
    """
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:
        place, is_leaf = stack.pop()
        if not 0 <= place < (leaves if is_leaf else nodes):
            raise ConversionError(f"tree {tree} leads to {'leaf' if is_leaf else 'node'} {place}")
        if is_leaf:
            continue
        if place in seen:
            raise ConversionError(
                f"node {place} of tree {tree} is reached on two ways; Core ML has trees only"
            )
        seen.add(place)
        stack += _children(columns, place)


def _children(columns: Mapping[str, list[int]], place: int) -> list[tuple[int, bool]]:
    """The nodes that a branch leads to, that of true first, and whether they are leaves."""
    return [
        (columns[f"{side}nodeids"][place], bool(columns[f"{side}leafs"][place]))
        for side in ("true", "false")
    ]


def _grow(
    forest: Forest,
    tree: int,
    root: int,
    columns: Mapping[str, list[int]],
    modes: list[int],
    splits: list[float],
    missing: list[int],
    targets: list[int],
    weights: list[float],
    sets: Mapping[int, list[float]],
    row: Row,
) -> None:
    """Add a tree; its nodes are numbered in the order in which they are found.

    A test of membership becomes one of equality for each value, with a copy of what it leads to.
    """
    stack: list[tuple[int, bool, int, int]] = [(root, False, 0, 0)]
    number = 0
    while stack:
        place, is_leaf, name, member = stack.pop()
        forest.order.append((tree, name))
        limits.check("weights", _NODE_BYTES * len(forest.order), "its trees take bytes:")
        if is_leaf:
            forest.leaves[tree, name] = [(targets[place], weights[place])]
            continue
        if not 0 <= modes[place] < len(_NUMBERED):
            raise ConversionError(f"a node of mode {modes[place]}")
        true, false = (tree, number + 1), (tree, number + 2)
        number += 2
        members = sets.get(place)
        forest.branches[tree, name] = _branch(
            "BRANCH_EQ" if members else _NUMBERED[modes[place]],
            columns["featureids"][place],
            members[member] if members else splits[place],
            true,
            false,
            bool(missing[place]),
            row,
        )
        then, otherwise = ((*child, 0) for child in _children(columns, place))
        if members and member + 1 < len(members):
            otherwise = (place, False, member + 1)
        for (_, name_of), (child, leaf, next_member) in ((false, otherwise), (true, then)):
            stack.append((child, leaf, name_of, next_member))


# ---- classification --------------------------------------------------------------------


@op("TreeEnsembleClassifier")
def tree_ensemble_classifier(flow: Flow, node: Node, x: Held) -> tuple[Label, Scores]:
    """The result in onnxruntime; for two classes that depends on the signs of the weights."""
    row = flow.sample(x)
    labels = labels_of(node, "classlabels_strings", "classlabels_int64s")
    forest = _forest(node, row, "class")
    _check_targets(forest, len(labels))
    base = _numbers(node, "base_values")
    transform = transform_of(node)
    make = _of_two if len(labels) == 2 else _of_many
    classes = make(flow, node, row, labels, forest, base, transform)
    return Label(classes), Scores(classes)


def _classifier(
    flow: Flow,
    node: Node,
    row: Row,
    labels: Labels,
    ensemble: pp.TreeEnsembleParameters,
    transform: str = "NoTransform",
    *,
    is_distribution: bool = False,
) -> Classes:
    message = pp.TreeEnsembleClassifier(treeEnsemble=ensemble, postEvaluationTransform=transform)
    return flow.classifier(
        node, "treeEnsembleClassifier", message, row, labels, is_distribution=is_distribution
    )


def _of_two(
    flow: Flow,
    node: Node,
    row: Row,
    labels: Labels,
    forest: Forest,
    base: Sequence[float],
    transform: str,
) -> Classes:
    """Leaves that add to one score alone, s, with the base value.

    The second class is predicted where s is above 0.5, if no weight is below 0; else above 0. The
    scores are 1 - s and s, or -s and s; LOGISTIC makes 1 - p and p of s. Where leaves add to the
    second score, the first is 0.
    """
    targets = forest.targets or {0}
    if len(targets) > 1:
        raise ConversionError(
            "its leaves add to the scores of both classes: onnxruntime predicts the second where "
            "its score is above 0, ONNX where it is the larger one. Write the chance of the second "
            "class alone, as skl2onnx does"
        )
    if len(base) == 2 or (base and targets == {1}):
        raise ConversionError(
            f"{len(base)} base_values for two classes and weights of one: runtimes do not agree "
            "on it"
        )
    if not forest.always_adds(max(targets)):
        raise ConversionError("a leaf of every tree adds nothing: what is predicted then is open")
    all_positive = min(forest.weights, default=0.0) >= 0
    start = base[0] if base else 0.0
    (target,) = targets
    if target == 0 and transform == "PROBIT":
        raise refused_transform(node, transform)
    single = forest.message(1, [start], places={target: [(0, 1.0)]})
    is_chance = all_positive and target == 0
    if target == 0 and transform == "LOGISTIC":
        logistic = _classifier(
            flow, node, row, labels, single, "Regression_Logistic", is_distribution=True
        )
        if not all_positive:
            return logistic
        label = _classifier(flow, node, row, labels, single)
        return Classes(
            labels,
            label.add_label,
            logistic.scores,
            add_scores=logistic.add_both,
            is_distribution=True,
        )
    if target == 0 and is_chance:
        # 1 - s and s add up to 1; they are not shares where s is above 1
        return _classifier(flow, node, row, labels, single)
    if transform == "LOGISTIC":
        raise ConversionError(
            "LOGISTIC with weights of the second class alone gives scores that are not chances; "
            "write them as weights of the first"
        )
    first = -1.0 if target == 0 else 0.0
    both = forest.message(2, [first * start, start], places={target: [(0, first), (1, 1.0)]})
    if target == 1 and transform in ("SOFTMAX_ZERO", "PROBIT"):
        label = _classifier(flow, node, row, labels, single if all_positive else both)
        return Classes(
            labels, label.add_label, lambda: _scores(flow, node, row, both, 2, transform)
        )
    is_softmax = transform == "SOFTMAX" and target == 1
    chosen = _classifier(
        flow,
        node,
        row,
        labels,
        both,
        "Classification_SoftMax" if is_softmax else "NoTransform",
        is_distribution=is_softmax,
    )
    if not all_positive:
        return chosen
    label = _classifier(flow, node, row, labels, single)
    return Classes(
        labels,
        label.add_label,
        chosen.scores,
        add_scores=chosen.add_both,
        is_distribution=is_softmax,
    )


def _of_many(
    flow: Flow,
    node: Node,
    row: Row,
    labels: Labels,
    forest: Forest,
    base: Sequence[float],
    transform: str,
) -> Classes:
    """The class with the largest score.

    Raises:
        ConversionError: without base values, a class that no leaf adds to is not a candidate for
            onnxruntime; that matters where scores may be below 0.
    """
    size = len(labels)
    if len(base) not in (0, size):
        raise ConversionError(f"{len(base)} base_values for {size} classes")
    if not base and min(forest.weights, default=0.0) < 0:
        rare = [labels[i] for i in range(size) if not forest.always_adds(i)]
        if rare:
            raise ConversionError(
                f"no leaf may add to the score of {rare[0]!r}: onnxruntime leaves it out then, "
                "ONNX takes it as 0. Write base_values, of 0"
            )
    ensemble = forest.message(size, base)
    if transform == "SOFTMAX":
        return _classifier(
            flow, node, row, labels, ensemble, "Classification_SoftMax", is_distribution=True
        )
    raw = _classifier(flow, node, row, labels, ensemble)
    if transform == "NONE":
        return raw
    return Classes(
        labels, raw.add_label, lambda: _scores(flow, node, row, ensemble, size, transform)
    )


def _scores(
    flow: Flow,
    node: Node,
    row: Row,
    ensemble: pp.TreeEnsembleParameters,
    size: int,
    transform: str,
) -> Row:
    """The transformed scores, by a regressor and a network."""
    message = pp.TreeEnsembleRegressor(treeEnsemble=ensemble)
    sums = flow.to_row("treeEnsembleRegressor", message, row, f"{node.name}_value", size)
    return flow.row(transformed(flow, sums, size, transform))
