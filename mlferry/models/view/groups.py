"""Fold the boxes of a name scope into one, which opens up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlferry.models.view.boxes import Box, BoxGraph

_SEPARATORS = re.compile(r"[/.]")
_LARGE = 40  # boxes of a group whose own scopes are folded, too
_PLAIN = ("layer", "custom")


def folded(graph: BoxGraph) -> BoxGraph | None:
    """The graph with a box for each name scope; None if names have no scopes.

    A scope whose layers depend on each other through layers outside stays unfolded: as one box it
    would read its own output.
    """
    members: dict[str, list[int]] = {}
    for index, scope in enumerate(_scopes(graph.boxes)):
        if scope:
            members.setdefault(scope, []).append(index)
    several = {scope: boxes for scope, boxes in members.items() if len(boxes) > 1}
    groups = _without_circles(graph, several)
    return _built(graph, groups) if len(groups) > 1 else None


def _scopes(boxes: Sequence[Box]) -> list[str]:
    """The first part of each name after their common prefix; "" if there is none.

    A layer whose name is a scope of others belongs to it.
    """
    parts = [
        [part for part in _SEPARATORS.split(box.name) if part] if box.role in _PLAIN else []
        for box in boxes
    ]
    scopes = {tuple(each[:depth]) for each in parts for depth in range(1, len(each))}
    parts = [each if tuple(each) in scopes else each[:-1] for each in parts]
    named = [each for each in parts if each]
    shared = 0
    while True:
        heads = {each[shared] for each in named if len(each) > shared}
        if len(heads) != 1 or not any(len(each) > shared + 1 for each in named):
            break
        shared += 1
    return ["/".join(each[: shared + 1]) if len(each) > shared else "" for each in parts]


def _without_circles(
    graph: BoxGraph, groups: Mapping[str, Sequence[int]]
) -> dict[str, Sequence[int]]:
    """The groups that can be one box: they read only what comes before them."""
    import igraph

    left = dict(groups)
    while left:
        owner = _owners(len(graph.boxes), left)
        names = {scope: owner[boxes[0]] for scope, boxes in left.items()}
        links = {(owner[edge.start], owner[edge.end]) for edge in graph.edges}
        whole: Any = igraph.Graph(
            max(owner, default=0) + 1, [link for link in links if link[0] != link[1]], directed=True
        )
        circles = whole.connected_components(mode="strong")
        size = dict(enumerate(circles.sizes()))
        bad = [scope for scope, at in names.items() if size[circles.membership[at]] > 1]
        if not bad:
            return left
        for scope in bad:
            del left[scope]
    return left


def _owners(count: int, groups: Mapping[str, Sequence[int]]) -> list[int]:
    """The box that each box is in: the first of its group, or itself."""
    owner = list(range(count))
    for boxes in groups.values():
        for box in boxes:
            owner[box] = boxes[0]
    return owner


def _built(graph: BoxGraph, groups: Mapping[str, Sequence[int]]) -> BoxGraph:
    import igraph

    owner = _owners(len(graph.boxes), groups)
    scopes = {boxes[0]: scope for scope, boxes in groups.items()}
    links = {(owner[edge.start], owner[edge.end]) for edge in graph.edges}
    whole: Any = igraph.Graph(
        len(graph.boxes), [link for link in links if link[0] != link[1]], directed=True
    )
    result = BoxGraph()
    for index in whole.topological_sorting():
        if owner[index] != index:
            continue
        box = graph.boxes[index]
        if index in scopes:
            inside = [graph.boxes[each] for each in groups[scopes[index]]]
            box, reads, writes = _group(scopes[index], inside, graph, set(groups[scopes[index]]))
        else:
            reads, writes = box.inputs, box.outputs
        result.add(box, reads, writes)
    return result


def _group(
    scope: str, inside: Sequence[Box], graph: BoxGraph, members: set[int]
) -> tuple[Box, list[tuple[str, str]], list[tuple[str, str]]]:
    """The box of a scope, with the blobs that it reads and those that are read from it."""
    inner = BoxGraph()
    own = {blob for box in inside for blob, _ in box.outputs}
    reads = dict(operand for box in inside for operand in box.inputs if operand[0] not in own)
    for blob, label in reads.items():
        inner.add(Box(blob, "from outside", [("shape", label)], role="input"), [], [(blob, label)])
    for box in inside:
        inner.add(box, box.inputs, box.outputs)
    outside = {
        edge.blob for edge in graph.edges if edge.start in members and edge.end not in members
    }
    writes = {blob: label for box in inside for blob, label in box.outputs if blob in outside}
    boxes = inner
    if len(inside) > _LARGE:
        boxes = folded(inner) or inner
    kinds = list(dict.fromkeys(box.kind for box in inside))
    rows = [("layers", str(len(inside))), ("kinds", ", ".join(kinds))]
    families = [box.family for box in inside]
    group = Box(scope, f"{len(inside)} layers", rows, role="group", inside=[(scope, boxes)])
    group.family = max(dict.fromkeys(families), key=families.count)
    return group, [*reads.items()], [*writes.items()]
