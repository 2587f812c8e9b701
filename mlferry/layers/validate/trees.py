"""Rules about ensembles of trees, as in Apple's checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain

from mlferry.layers.definitions import LARGEST_SIZE
from mlferry.layers.validate.rules import kind_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problems, error, listed, warning
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

Ensemble = pp.TreeEnsembleRegressor | pp.TreeEnsembleClassifier
Node = pp.TreeEnsembleParameters.TreeNode
Key = tuple[int, int]  # the tree and the node in it
_KINDS = ("treeEnsembleRegressor", "treeEnsembleClassifier")
_BEHAVIORS = frozenset(Node.TreeNodeBehavior.values())
_SHOWN = 5


@kind_rule(*_KINDS)
def tree_outputs(spec: model_pb2.Model, params: Ensemble) -> Problems:
    """An ensemble predicts at least one number, and has a base value for each, or none."""
    count, base = _outputs(params), len(params.treeEnsemble.basePredictionValue)
    if not params.treeEnsemble.numPredictionDimensions:
        yield warning("numPredictionDimensions is not set; write how many numbers it predicts")
    elif count > LARGEST_SIZE:
        yield error(f"numPredictionDimensions is {count}; it must be at most {LARGEST_SIZE}")
    if base not in (0, count):
        yield error(f"basePredictionValue has {base} values for {count} outputs")


@kind_rule("treeEnsembleClassifier")
def tree_classes(spec: model_pb2.Model, params: pp.TreeEnsembleClassifier) -> Problems:
    """Two classes have one output or two; more have one each."""
    count, classes = _outputs(params), len(networks.class_labels(params))
    if classes and (count, classes) != (1, 2) and not 2 <= count == classes:
        yield warning(f"numPredictionDimensions is {count}, and there are {classes} classes")


@kind_rule(*_KINDS)
def tree_nodes(spec: model_pb2.Model, params: Ensemble) -> Problems:
    """Every node but one root a tree is the child of one branch; leaves add to outputs."""
    branches: dict[Key, tuple[Key, Key]] = {}
    leaves: dict[Key, list[int]] = {}
    unknown: set[int] = set()
    nodes = params.treeEnsemble.nodes
    for node in nodes:  # once: reading the fields of 100,000 nodes takes a second
        tree, behavior = node.treeId, node.nodeBehavior
        if behavior == Node.LeafNode:
            leaves[tree, node.nodeId] = [added.evaluationIndex for added in node.evaluationInfo]
            continue
        branches[tree, node.nodeId] = ((tree, node.trueChildNodeId), (tree, node.falseChildNodeId))
        if behavior not in _BEHAVIORS:
            unknown.add(behavior)
    if unknown:
        known = ", ".join(Node.TreeNodeBehavior.keys())
        yield error(f"nodeBehavior {listed(sorted(unknown))} is unknown; known are {known}")
    if len(branches.keys() | leaves.keys()) < len(nodes):
        keys = Counter((node.treeId, node.nodeId) for node in nodes)
        same = [key for key, count in keys.items() if count > 1]
        yield error(f"nodes that a tree has twice: {_names(same)}")
    yield from _leaves(leaves, _outputs(params))
    yield from _branches(branches, leaves.keys())


def _leaves(leaves: Mapping[Key, Sequence[int]], count: int) -> Problems:
    """A leaf adds to at least one output, to each once."""
    usual = [0]
    others = {key: added for key, added in leaves.items() if added != usual}
    empty = [key for key, added in others.items() if not added]
    beyond = [key for key, added in others.items() if added and max(added) >= count]
    twice = [key for key, added in others.items() if len(set(added)) < len(added)]
    if empty:
        yield warning(f"leaves that add nothing: {_names(empty)}")
    if beyond:
        yield error(f"leaves that add to an output beyond {count}: {_names(beyond)}")
    if twice:
        yield warning(f"leaves that add to the same output twice: {_names(twice)}")


def _branches(branches: Mapping[Key, tuple[Key, Key]], leaves: Set[Key]) -> Problems:
    children = list(chain.from_iterable(branches.values()))
    known = branches.keys() | leaves
    inner = set(children)
    missing = inner - known
    if missing:
        yield error(f"branches lead to nodes that do not exist: {_names(missing)}")
        return
    if len(inner) < len(children):
        shared = [key for key, count in Counter(children).items() if count > 1]
        yield error(f"nodes that are children of two branches: {_names(shared)}")
    roots = known - inner
    counts = Counter(tree for tree, _ in roots)
    wrong = sorted({tree for tree, _ in known if counts[tree] != 1})
    if wrong:
        yield error(f"every tree has one root; trees {listed(wrong)} have none, or several")
        return
    reached, waiting = set(roots), roots
    while waiting:
        waiting = set(chain.from_iterable(branches.get(key, ()) for key in waiting)) - reached
        reached |= waiting
    if len(reached) < len(known):
        yield error(f"nodes that no root leads to: {_names(known - reached)}")


def _outputs(params: Ensemble) -> int:
    return int(params.treeEnsemble.numPredictionDimensions) or 1


def _names(keys: Iterable[Key]) -> str:
    ordered = sorted(keys)
    more = f", and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    shown = (f"node {node} of tree {tree}" for tree, node in ordered[:_SHOWN])
    return ", ".join(shown) + more
