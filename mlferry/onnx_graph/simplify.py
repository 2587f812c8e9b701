"""Removes nodes that compute nothing from a graph.

Functions of layer kinds bring values into the shapes that their nodes need, and back. A chain of
nodes that only change a shape becomes one node. Such a node moves past elementwise nodes, so that
it meets the next one; if the shape ends up as it was, both disappear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph.graph import BY_VALUE, Body, Graph, Node, walk

_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_WITH_NUMBER = {"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"}
_ROUNDS_MOST = 100


def simplified(graph: Graph, shapes: Mapping[str, Shape | None]) -> Graph:
    """The graph without nodes that compute nothing or that nothing reads; it is changed in place.

    Args:
        shapes: what is known about the shapes of its values.
    """
    ends = {port.name for port in graph.outputs}
    graph.nodes[:] = _alive(graph.nodes, set(ends))
    simplifier = _Simplifier(graph, dict(shapes))
    for nodes, outputs in _scopes(graph.nodes, ends):
        for _ in range(_ROUNDS_MOST):
            if not simplifier.round(nodes, outputs):
                break
    graph.nodes[:] = _alive(graph.nodes, set(ends))
    used = _read(graph.nodes) | ends | {port.name for port in graph.inputs}
    for name in [name for name in graph.arrays if name not in used]:
        del graph.arrays[name]
    return graph


def _scopes(nodes: list[Node], outputs: set[str]) -> Iterator[tuple[list[Node], set[str]]]:
    """Every list of nodes, with its outputs."""
    yield nodes, outputs
    for node in nodes:
        for body in node.bodies:
            yield from _scopes(body.nodes, {port.name for port in body.outputs})


def _read(nodes: list[Node]) -> set[str]:
    """Every value that nodes, or the outputs of bodies in them, read."""
    names: set[str] = set()
    for node in walk(nodes):
        names |= set(node.inputs)
        for body in node.bodies:
            names |= {port.name for port in body.outputs}
    return names


def _alive(nodes: list[Node], needed: set[str]) -> list[Node]:
    remaining: list[Node] = []
    for node in reversed(nodes):
        if not needed & set(node.outputs):
            continue
        for key, value in node.attributes.items():
            if isinstance(value, Body):
                ends = {port.name for port in value.outputs}
                inner = _alive(value.nodes, set(ends))
                node.attributes[key] = Body(inner, value.inputs, value.outputs)
                needed |= ends
        needed |= _read([node])
        remaining.append(node)
    return remaining[::-1]


class _Simplifier:
    def __init__(self, graph: Graph, shapes: dict[str, Shape | None]) -> None:
        self.graph, self.shapes = graph, shapes

    def whole(self, name: str) -> tuple[int, ...] | None:
        """The shape of a value, if every extent is known."""
        shape = self.shapes.get(name)
        if shape is None or None in shape:
            return None
        return tuple(n for n in shape if n is not None)

    def is_view(self, node: Node | None) -> bool:
        """Whether a node changes nothing but the shape, and to a known one."""
        return (
            node is not None
            and node.op in _VIEWS
            and not node.domain
            and self.whole(node.outputs[0]) is not None
        )

    def round(self, nodes: list[Node], outputs: set[str]) -> bool:
        """Simplify each node of one scope once, and say whether anything changed."""
        made_by = {name: node for node in nodes for name in node.outputs}
        reads = Counter(name for node in walk(self.graph.nodes) for name in node.inputs)
        reads.update(outputs)
        reads.update(
            port.name
            for node in walk(self.graph.nodes)
            for body in node.bodies
            for port in body.outputs
        )
        changed = False
        for node in list(nodes):
            before = made_by.get(node.inputs[0]) if node.inputs else None
            if self.is_view(node):
                if before is not None and self.is_view(before):
                    self._become_view(node, before.inputs[0], node.outputs[0])
                    changed = True
                changed |= self._dropped(node, nodes, outputs, made_by)
            elif node.op == "Transpose" and before is not None and before.op == "Transpose":
                inner, outer = before.attributes["perm"], node.attributes["perm"]
                node.inputs[0] = before.inputs[0]
                node.attributes["perm"] = [inner[axis] for axis in outer]
                changed = True
            elif (
                before is not None
                and self.is_view(before)
                and reads[before.outputs[0]] == 1
                and self._swapped(before, node)
            ):
                made_by[before.outputs[0]] = before
                made_by[node.outputs[0]] = node
                changed = True
        return changed

    def _become_view(self, node: Node, source: str, result: str) -> None:
        shape = self.whole(result)
        assert shape is not None
        name = f"{result}/shape"
        self.graph.arrays[name] = np.array(shape, np.int64)
        self.shapes[name] = (len(shape),)
        node.op, node.inputs, node.outputs = "Reshape", [source, name], [result]
        node.attributes = {"allowzero": 1} if 0 in shape else {}

    def _dropped(
        self, node: Node, nodes: list[Node], outputs: set[str], made_by: dict[str, Node]
    ) -> bool:
        """Remove a node that returns the shape of its input, and say whether that happened."""
        source, result = node.inputs[0], node.outputs[0]
        if self.whole(source) != self.whole(result):
            return False
        if result in outputs:
            maker = made_by.get(source)
            if maker is None or source in outputs:
                return False
            maker.outputs = [result if name == source else name for name in maker.outputs]
            made_by[result] = maker
            old, new = source, result
        else:
            old, new = result, source
        nodes[:] = [other for other in nodes if other is not node]
        for other in walk(self.graph.nodes):
            other.inputs = [new if name == old else name for name in other.inputs]
        return True

    def _swapped(self, view: Node, node: Node) -> bool:
        """Move a view from before a node to after it, and say whether that happened."""
        attributes = self._moved(view, node)
        if attributes is None:
            return False
        source, between, result = view.inputs[0], view.outputs[0], node.outputs[0]
        op, others, name = node.op, node.inputs[1:], node.name
        self._become_view(node, between, result)
        node.name, view.name = view.name, name
        view.op, view.inputs, view.attributes = op, [source, *others], attributes
        self.shapes[between] = self.shapes.get(source)
        return True

    def _moved(self, view: Node, node: Node) -> dict[str, object] | None:
        """The attributes of a node on the other side of a view; None if it cannot move there."""
        if self.whole(view.inputs[0]) is None or self.whole(node.outputs[0]) is None or node.domain:
            return None
        if node.op in BY_VALUE:
            return node.attributes
        if node.op in _WITH_NUMBER:
            others = [self.graph.arrays.get(name) for name in node.inputs[1:]]
            alone = all(other is not None and other.ndim == 0 for other in others)
            return node.attributes if alone else None
        if node.op == "Softmax":
            axis = _same_axis(
                self.whole(view.outputs[0]) or (),
                self.whole(view.inputs[0]) or (),
                node.attributes["axis"],
            )
            return None if axis is None else {**node.attributes, "axis": axis}
        return None


def _same_axis(shape: tuple[int, ...], other: tuple[int, ...], axis: int) -> int | None:
    """The place in `other` of an axis of `shape`, if the two differ only by axes of 1."""
    axis %= len(shape)
    places = [place for place, extent in enumerate(shape) if extent != 1]
    others = [place for place, extent in enumerate(other) if extent != 1]
    if [shape[place] for place in places] != [other[place] for place in others]:
        return None
    return others[places.index(axis)] if axis in places else None
