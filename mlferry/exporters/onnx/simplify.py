"""Removes from a graph what computes nothing."""

from __future__ import annotations

from mlferry.exporters.onnx.graph import Body, Graph, Node, walk


def simplified(graph: Graph) -> Graph:
    """The graph without nodes and constants that nothing reads; changed in place."""
    graph.nodes[:] = _alive(graph.nodes, {port.name for port in graph.outputs})
    read = _read(graph.nodes) | {port.name for port in (*graph.inputs, *graph.outputs)}
    for name in [name for name in graph.arrays if name not in read]:
        del graph.arrays[name]
    return graph


def _read(nodes: list[Node]) -> set[str]:
    """Every value that nodes, or the outputs of bodies in them, read."""
    read: set[str] = set()
    for node in walk(nodes):
        read |= set(node.inputs)
        for body in node.bodies:
            read |= {port.name for port in body.outputs}
    return read


def _alive(nodes: list[Node], needed: set[str]) -> list[Node]:
    kept: list[Node] = []
    for node in reversed(nodes):
        if not needed & set(node.outputs):
            continue
        for key, value in node.attributes.items():
            if isinstance(value, Body):
                ends = {port.name for port in value.outputs}
                inner = _alive(value.nodes, ends)
                node.attributes[key] = Body(inner, value.inputs, value.outputs)
                needed |= ends
        needed |= _read([node])
        kept.append(node)
    return kept[::-1]
