"""Trees of ai.onnx.ml, read into those of Core ML.

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
from mlferry.converters.onnx.ml.values import Row
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

NODE_BYTES = 64
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
    """Trees as Core ML has them: exactly one path leads from the root to each node.

    Attributes:
        branches: nodes that are not leaves, by tree and node.
        leaves: what each leaf adds, by tree and node: pairs of a score and a number.
        order: all nodes, tree by tree, in the order in which Core ML gets them.
        trees: the number of trees.
    """

    branches: dict[Key, Branch] = field(default_factory=dict)
    leaves: dict[Key, list[tuple[int, float]]] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    trees: int = 0

    @property
    def weights(self) -> list[float]:
        """What the leaves add."""
        return [value for adds in self.leaves.values() for _, value in adds]

    @property
    def targets(self) -> set[int]:
        """The scores that leaves add to."""
        return {target for adds in self.leaves.values() for target, _ in adds}

    def check_targets(self, size: int) -> None:
        """Raise a `ConversionError` if a leaf adds to a score that does not exist."""
        outside = [target for target in self.targets if not 0 <= target < size]
        if outside:
            raise ConversionError(f"a leaf adds to score {outside[0]} of {size}")

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
            base: what each score starts with; empty for 0.
            scale: multiplies what leaves add.
            places: the scores of Core ML to which a score of ONNX is added, with factors; by
                default the same score.
        """
        message = pp.TreeEnsembleParameters(numPredictionDimensions=size)
        message.basePredictionValue.extend(base)
        for tree, node in self.order:
            if (tree, node) in self.branches:
                branch = self.branches[tree, node]
                message.nodes.add(
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
            leaf = message.nodes.add(treeId=tree, nodeId=node, nodeBehavior=_TreeNode.LeafNode)
            sums: dict[int, float] = {}
            for target, value in adds:
                for place, factor in (places or {}).get(target, [(target, 1.0)]):
                    sums[place] = sums.get(place, 0.0) + value * factor * scale
            for place, value in sorted(sums.items()) or [(0, 0.0)]:
                leaf.evaluationInfo.add(evaluationIndex=place, evaluationValue=value)
        return message

    def always_adds(self, target: int) -> bool:
        """Whether some tree adds to a score whatever the input."""
        trees: dict[int, bool] = {}
        for (tree, _), adds in self.leaves.items():
            has = any(place == target for place, _ in adds)
            trees[tree] = trees.get(tree, True) and has
        return any(trees.values())


# ---- the older ops, whose leaves are nodes ---------------------------------------------


def numbers(node: Node, name: str) -> list[float]:
    """Floats of an attribute, or of the tensor that may hold them as doubles."""
    tensor = node.attrs.get(f"{name}_as_tensor")
    match = node.attrs.get(name, ())
    return [float(v) for v in np.asarray(match if tensor is None else tensor).ravel()]


def _integers(node: Node, name: str) -> list[int]:
    return [int(v) for v in np.asarray(node.attrs.get(name, ())).ravel()]


def read_forest(node: Node, row: Row, kind: str) -> Forest:
    """The trees of the two older ops; `kind` is what leaves add to, "target" or "class".

    Raises:
        ConversionError: attributes do not fit together, or Core ML has no such trees.
    """
    node.attrs.get("nodes_hitrates"), node.attrs.get("nodes_hitrates_as_tensor")
    columns = {
        name: list(node.attrs.get(f"nodes_{name}", ()))
        for name in ("treeids", "nodeids", "modes", "featureids", "truenodeids", "falsenodeids")
    }
    values = numbers(node, "nodes_values")
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
                f"node {key[1]} of tree {key[0]} is reached by two paths; Core ML has trees only"
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
    values = numbers(node, f"{kind}_weights")
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


# ---- the op of opset 5, whose leaves are apart -----------------------------------------

_MEMBER = _NUMBERED.index("BRANCH_MEMBER")


def _members(node: Node, modes: Sequence[int]) -> dict[int, list[float]]:
    """The values of each node that tests membership; in the attribute, NaN separates the nodes."""
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


@dataclass
class _Columns:
    """The attributes of the op, which are indexed by node or by leaf."""

    ids: Mapping[str, list[int]]
    modes: list[int]
    splits: list[float]
    missing: list[int]
    targets: list[int]
    weights: list[float]
    sets: Mapping[int, list[float]]

    def children(self, place: int) -> list[tuple[int, bool]]:
        """The indices that a branch leads to, first if true, and whether they are leaves."""
        return [
            (self.ids[f"{side}nodeids"][place], bool(self.ids[f"{side}leafs"][place]))
            for side in ("true", "false")
        ]

    def check_tree(self, tree: int, root: int) -> None:
        """Refuse graphs that are not trees.

        Raises:
            ConversionError: two paths lead to a node, or there is no such node or leaf.
        """
        seen: set[int] = set()
        stack = [(root, False)]
        while stack:
            place, is_leaf = stack.pop()
            if not 0 <= place < len(self.targets if is_leaf else self.modes):
                raise ConversionError(
                    f"tree {tree} leads to {'leaf' if is_leaf else 'node'} {place}"
                )
            if is_leaf:
                continue
            if place in seen:
                raise ConversionError(
                    f"node {place} of tree {tree} is reached by two paths; Core ML has trees only"
                )
            seen.add(place)
            stack += self.children(place)

    def grow(self, forest: Forest, tree: int, root: int, row: Row) -> None:
        """Add a tree, whose nodes are numbered from the root.

        A test of membership becomes one of equality for each value, with a copy of what it leads
        to.
        """
        stack: list[tuple[int, bool, int, int]] = [(root, False, 0, 0)]
        number = 0
        while stack:
            place, is_leaf, name, member = stack.pop()
            forest.order.append((tree, name))
            limits.check("weights", NODE_BYTES * len(forest.order), "its trees take bytes:")
            if is_leaf:
                forest.leaves[tree, name] = [(self.targets[place], self.weights[place])]
                continue
            if not 0 <= self.modes[place] < len(_NUMBERED):
                raise ConversionError(f"a node of mode {self.modes[place]}")
            true, false = (tree, number + 1), (tree, number + 2)
            number += 2
            members = self.sets.get(place)
            forest.branches[tree, name] = _branch(
                "BRANCH_EQ" if members else _NUMBERED[self.modes[place]],
                self.ids["featureids"][place],
                members[member] if members else self.splits[place],
                true,
                false,
                bool(self.missing[place]),
                row,
            )
            then, otherwise = ((*child, 0) for child in self.children(place))
            if members and member + 1 < len(members):
                otherwise = (place, False, member + 1)
            for (_, name_of), (child, leaf, next_member) in ((false, otherwise), (true, then)):
                stack.append((child, leaf, name_of, next_member))


def read_forest_5(node: Node, row: Row) -> Forest:
    """The trees of the op of opset 5.

    Raises:
        ConversionError: attributes do not fit together, or Core ML has no such trees.
    """
    node.attrs.get("nodes_hitrates")
    names = ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    ids = {name: _integers(node, f"nodes_{name}") for name in names}
    modes, splits = _integers(node, "nodes_modes"), numbers(node, "nodes_splits")
    count = len(modes)
    missing = list(node.attrs.get("nodes_missing_value_tracks_true", ()) or [0] * count)
    if {len(c) for c in ids.values()} != {count} or not len(splits) == len(missing) == count:
        raise ConversionError("its nodes_* attributes are of several lengths")
    targets, weights = _integers(node, "leaf_targetids"), numbers(node, "leaf_weights")
    if len(targets) != len(weights):
        raise ConversionError("its leaf_* attributes are of several lengths")
    sets = _members(node, modes)
    columns = _Columns(ids, modes, splits, missing, targets, weights, sets)
    roots = _integers(node, "tree_roots")
    forest = Forest(trees=len(roots))
    for tree, root in enumerate(roots):
        columns.check_tree(tree, root)
        columns.grow(forest, tree, root, row)
    return forest
