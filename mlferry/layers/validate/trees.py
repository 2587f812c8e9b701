"""Rules about ensembles of trees, as in Apple's checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from mlferry.layers.definitions import LARGEST_SIZE
from mlferry.layers.validate.rules import kind_rule
from mlferry.spec.problems import Problems, error, listed, warning
from mlferry.spec.proto import model_pb2, predictors_pb2 as pp

Ensemble = pp.TreeEnsembleRegressor | pp.TreeEnsembleClassifier
Node = pp.TreeEnsembleParameters.TreeNode
Key = tuple[int, int]  # the tree and the node in it
_KINDS = ("treeEnsembleRegressor", "treeEnsembleClassifier")
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
    field, count = params.WhichOneof("ClassLabels"), _outputs(params)
    classes = len(getattr(params, field).vector) if field else 0
    if classes and (count, classes) != (1, 2) and not 2 <= count == classes:
        yield warning(f"numPredictionDimensions is {count}, and there are {classes} classes")


@kind_rule(*_KINDS)
def leaves(spec: model_pb2.Model, params: Ensemble) -> Problems:
    """A leaf adds to at least one output, to each once."""
    count = _outputs(params)
    empty: list[Key] = []
    beyond: list[Key] = []
    twice: list[Key] = []
    for node in params.treeEnsemble.nodes:
        if node.nodeBehavior != Node.LeafNode:
            continue
        key, added = (node.treeId, node.nodeId), [i.evaluationIndex for i in node.evaluationInfo]
        if not added:
            empty.append(key)
        elif max(added) >= count:
            beyond.append(key)
        elif len(set(added)) < len(added):
            twice.append(key)
    if empty:
        yield warning(f"leaves that add nothing: {_names(empty)}")
    if beyond:
        yield error(f"leaves that add to an output beyond {count}: {_names(beyond)}")
    if twice:
        yield warning(f"leaves that add to the same output twice: {_names(twice)}")


@kind_rule(*_KINDS)
def branches(spec: model_pb2.Model, params: Ensemble) -> Problems:
    """Every node but one root a tree is the child of one branch."""
    nodes = {(node.treeId, node.nodeId): node for node in params.treeEnsemble.nodes}
    if len(nodes) < len(params.treeEnsemble.nodes):
        keys = Counter((node.treeId, node.nodeId) for node in params.treeEnsemble.nodes)
        same = [key for key, count in keys.items() if count > 1]
        yield error(f"nodes that a tree has twice: {_names(same)}")
    unknown = sorted(
        {node.nodeBehavior for node in nodes.values()} - {*Node.TreeNodeBehavior.values()}
    )
    if unknown:
        known = ", ".join(Node.TreeNodeBehavior.keys())
        yield error(f"nodeBehavior {listed(unknown)} is unknown; known are {known}")
    parents = Counter(child for key, node in nodes.items() for child in _children(key, node))
    missing = [child for child in parents if child not in nodes]
    if missing:
        yield error(f"branches lead to nodes that there are not: {_names(missing)}")
        return
    shared = [child for child, count in parents.items() if count > 1]
    if shared:
        yield error(f"nodes that are children of two branches: {_names(shared)}")
    yield from _roots(nodes, parents)


def _roots(nodes: Mapping[Key, Node], parents: Counter[Key]) -> Problems:
    roots = [key for key in nodes if key not in parents]
    counts = Counter(tree for tree, _ in roots)
    wrong = sorted({tree for tree, _ in nodes if counts[tree] != 1})
    if wrong:
        yield error(f"every tree has one root; trees {listed(wrong)} have none, or several")
        return
    reached, waiting = set(roots), list(roots)
    while waiting:
        key = waiting.pop()
        new = [child for child in _children(key, nodes[key]) if child not in reached]
        reached.update(new)
        waiting.extend(new)
    if len(reached) < len(nodes):
        yield error(f"nodes that no root leads to: {_names(nodes.keys() - reached)}")


def _children(key: Key, node: Node) -> list[Key]:
    if node.nodeBehavior == Node.LeafNode:
        return []
    return [(key[0], node.trueChildNodeId), (key[0], node.falseChildNodeId)]


def _outputs(params: Ensemble) -> int:
    return int(params.treeEnsemble.numPredictionDimensions) or 1


def _names(keys: Iterable[Key]) -> str:
    ordered = sorted(keys)
    more = f", and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    shown = (f"node {node} of tree {tree}" for tree, node in ordered[:_SHOWN])
    return ", ".join(shown) + more
