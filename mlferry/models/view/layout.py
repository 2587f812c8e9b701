"""Positions of boxes and edges: igraph's Sugiyama layout, in layers from the top."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlferry.errors import MissingDependencyError
from mlferry.models.view.boxes import BoxGraph, Edge

Point = tuple[float, float]


@dataclass(frozen=True)
class BoxLayout:
    """Places in cells: x in columns, y in layers.

    Attributes:
        boxes: the place of each box.
        routes: for each edge the places that it passes on its way, box to box.
    """

    boxes: list[Point]
    routes: list[list[Point]]


def lay_out(graph: BoxGraph) -> BoxLayout:
    """Boxes in layers, so that edges go down and cross seldom.

    An edge over several layers passes through a place in each of them, so that it runs around
    the boxes there.

    Raises:
        MissingDependencyError: igraph is missing.
    """
    try:
        import igraph
    except ImportError as error:
        raise MissingDependencyError(
            "drawing a graph needs igraph: pip install 'mlferry[view]'"
        ) from error
    layers = _depths(len(graph.boxes), graph.edges)
    chains: list[list[int]] = []
    links: list[tuple[int, int]] = []
    for edge in graph.edges:
        chain = [edge.start]
        for depth in range(layers[edge.start] + 1, layers[edge.end]):
            chain.append(len(layers))
            layers.append(depth)
        chain.append(edge.end)
        links += itertools.pairwise(chain)
        chains.append(chain)
    layout: Any = igraph.Graph(len(layers), links, directed=True).layout_sugiyama(
        layers=layers, hgap=1, vgap=1, maxiter=100
    )
    places = _apart([(float(x), float(y)) for x, y in layout.coords[: len(layers)]])
    return BoxLayout(places[: len(graph.boxes)], [[places[i] for i in chain] for chain in chains])


def _apart(places: Sequence[Point]) -> list[Point]:
    """Move the places of each layer until they are a column apart."""
    rows: dict[float, list[int]] = {}
    for index, (_, y) in enumerate(places):
        rows.setdefault(y, []).append(index)
    positions = list(places)
    for y, row in rows.items():
        row.sort(key=lambda index: places[index][0])
        # places that are too close are pushed apart as one block
        blocks: list[list[float]] = []  # sum of wishes for the block's start, members
        for index in row:
            blocks.append([places[index][0], 1])
            while len(blocks) > 1 and _start(blocks[-2]) + blocks[-2][1] > _start(blocks[-1]):
                wishes, count = blocks.pop()
                before = blocks[-1]
                before[0] += wishes - count * before[1]
                before[1] += count
        members = iter(row)
        for block in blocks:
            for step in range(int(block[1])):
                positions[next(members)] = (_start(block) + step, y)
    least = min((x for x, _ in positions), default=0.0)
    return [(x - least, y) for x, y in positions]


def _start(block: Sequence[float]) -> float:
    return block[0] / block[1]


def _depths(count: int, edges: Sequence[Edge]) -> list[int]:
    """The longest path from the top to each box; inputs come right above their first reader."""
    depths = [0] * count
    for edge in sorted(edges, key=lambda edge: (edge.end, edge.start)):
        depths[edge.end] = max(depths[edge.end], depths[edge.start] + 1)
    first_reader: dict[int, int] = {}
    targets = {edge.end for edge in edges}
    for edge in edges:
        if edge.start not in targets:
            near = first_reader.get(edge.start, depths[edge.end])
            first_reader[edge.start] = min(near, depths[edge.end])
    for box, near in first_reader.items():
        depths[box] = near - 1
    return depths
