"""A graph as a self-contained page: SVG, a style sheet and a small script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Any

from mlferry.models.view.boxes import Box, BoxGraph
from mlferry.models.view.families import cut
from mlferry.models.view.groups import folded
from mlferry.models.view.layout import BoxLayout, Point, lay_out

WIDTH = 196  # of a box, in pixels
HEAD, BODY, LINE = 24, 24, 14  # heights: of the kind, of the name, and of each line below it
COLUMN, ROW = 236, 124  # from box to box
_LETTERS = 27  # that fit into a box


def page(graph: BoxGraph, title: str) -> str:
    """The page, as text."""
    data = json.dumps(
        (drawing := _Drawing(graph, title)).facts, separators=(",", ":"), ensure_ascii=False
    ).replace("<", "\\u003c")
    files = resources.files("mlferry.models.view")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    script = files.joinpath("page.js").read_text(encoding="utf-8")
    unfold = files.joinpath("unfold.js").read_text(encoding="utf-8")
    body = files.joinpath("page.html").read_text(encoding="utf-8")
    for mark, text in (
        ("{{title}}", escape(title)),
        ("{{style}}", style),
        ("{{unfold}}", unfold),
        ("{{script}}", script),
        ("{{data}}", data),
        ("{{graphs}}", drawing.text),
    ):
        body = body.replace(mark, text, 1)
    return body


class _Drawing:
    """The graphs of a page, the outer one first, and the facts about their boxes.

    Attributes:
        facts: `boxes`, which a box of several graphs is in once, and `graphs`: title, parent,
            the places of boxes, and the number of the same graph with scopes folded.
    """

    def __init__(self, graph: BoxGraph, title: str) -> None:
        self.facts: dict[str, list[dict[str, Any]]] = {"boxes": [], "graphs": []}
        self._boxes: dict[int, int] = {}
        self._inner: dict[int, int] = {}
        self._svgs: list[str] = []
        self._add(graph, title, -1)
        grouped = folded(graph)
        if grouped is not None:
            number = self._add(grouped, title, -1)
            self.facts["graphs"][0]["other"] = number
            self.facts["graphs"][number]["other"] = 0

    @property
    def text(self) -> str:
        """The first graph, and the others in templates, which are not drawn at first."""
        first, *rest = self._svgs
        return "\n".join([first, *(f"<template>{svg}</template>" for svg in rest)])

    def _add(self, graph: BoxGraph, title: str, parent: int) -> int:
        """Append a graph and those inside of its boxes; its number."""
        number = len(self.facts["graphs"])
        layout = lay_out(graph)
        places = [(x * COLUMN + COLUMN / 2, y * ROW + ROW / 2) for x, y in layout.boxes]
        entry: dict[str, Any] = {"title": title, "parent": parent}
        self.facts["graphs"].append(entry)
        self._svgs.append(_svg(graph, layout, places, number))
        entry["boxes"] = [
            [self._box(box, number), round(x - WIDTH / 2), round(y - height(box) / 2), height(box)]
            for box, (x, y) in zip(graph.boxes, places, strict=True)
        ]
        return number

    def _box(self, box: Box, number: int) -> int:
        """The number of a box; its inner graphs belong to the first graph that contains it."""
        if id(box) in self._boxes:
            return self._boxes[id(box)]
        index = self._boxes[id(box)] = len(self.facts["boxes"])
        entry: dict[str, Any] = {
            "name": box.name,
            "kind": box.kind,
            "role": box.role,
            "family": box.family,
            "rows": box.rows,
            "inputs": box.inputs,
            "outputs": box.outputs,
        }
        self.facts["boxes"].append(entry)
        if box.weights:
            entry["weights"] = [
                {
                    "name": name,
                    "brief": detail.brief,
                    "numbers": list(detail.numbers.items()),
                    "bins": detail.bins,
                }
                for name, detail in box.weights
            ]
        if box.inside:
            entry["inside"] = [
                [
                    name,
                    self._add(inner, f"{box.name}: {name}" if name != box.name else name, number),
                ]
                for name, inner in box.inside
            ]
        return index


def height(box: Box) -> int:
    """Of a box, in pixels."""
    return HEAD + BODY + LINE * len(box.brief)


def _svg(graph: BoxGraph, layout: BoxLayout, places: list[Point], number: int) -> str:
    width = max((x for x, _ in places), default=0) + COLUMN / 2
    whole = max((y for _, y in places), default=0) + ROW / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" data-graph="{number}" '
        f'viewBox="0 0 {width:.0f} {whole:.0f}" data-width="{width:.0f}" '
        f'data-height="{whole:.0f}"><defs><marker id="arrow{number}" viewBox="0 0 8 8" refX="7" '
        'refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="arrow" '
        'd="M0 0L8 4L0 8z"/></marker></defs>'
    ]
    lines += _edges(graph, layout, number)
    for index, (box, place) in enumerate(zip(graph.boxes, places, strict=True)):
        lines.append(_box(box, place, index))
    return "".join([*lines, "</svg>"])


def _edges(graph: BoxGraph, layout: BoxLayout, number: int) -> Iterator[str]:
    """Lines from box to box, with the shape of each blob below the box that makes it."""
    labels: dict[tuple[int, str], str] = {}
    lines: dict[int, int] = {}
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        points = [(x * COLUMN + COLUMN / 2, y * ROW + ROW / 2) for x, y in route]
        (x, y), (u, v) = points[0], points[-1]
        below = y + height(graph.boxes[edge.start]) / 2
        points = [(x, below), *points[1:-1], (u, v - height(graph.boxes[edge.end]) / 2)]
        yield (
            f'<g class="edge" data-from="{edge.start}" data-to="{edge.end}">'
            f'<path marker-end="url(#arrow{number})" d="{_path(points)}"/>'
            f"<title>{escape(edge.blob)}: {escape(edge.label)}</title></g>"
        )
        if edge.label and (edge.start, edge.blob) not in labels:
            lines[edge.start] = lines.get(edge.start, 0) + 1
            place = f'x="{x + 6:.0f}" y="{below + LINE * lines[edge.start]:.0f}"'
            labels[edge.start, edge.blob] = (
                f'<text class="label" data-from="{edge.start}" {place}>{escape(edge.label)}</text>'
            )
    yield from labels.values()


def _path(points: list[Point]) -> str:
    """A smooth line that leaves and enters each point from above."""
    x, y = points[0]
    parts = [f"M{x:.0f} {y:.0f}"]
    for u, v in points[1:]:
        middle = (y + v) / 2
        parts.append(
            f"V{v:.0f}" if x == u else f"C{x:.0f} {middle:.0f} {u:.0f} {middle:.0f} {u:.0f} {v:.0f}"
        )
        x, y = u, v
    return "".join(parts)


def _box(box: Box, place: Point, index: int) -> str:
    tall = height(box)
    x, y = place[0] - WIDTH / 2, place[1] - tall / 2
    opens = " opens" if box.inside else ""
    label = escape(f"{box.kind} {box.name}", quote=True)
    lines = "".join(
        f'<text class="brief" x="10" y="{HEAD + BODY + LINE * row + 8}">'
        f"{escape(cut(text, 32))}</text>"
        for row, text in enumerate(box.brief)
    )
    return (
        f'<g class="box {box.role}{opens} f-{box.family}" data-box="{index}" tabindex="0" '
        f'role="button" aria-label="{label}" transform="translate({x:.0f} {y:.0f})">'
        f'<rect width="{WIDTH}" height="{tall}" rx="7"/>'
        f'<path class="head" d="M0 7a7 7 0 0 1 7-7H{WIDTH - 7}a7 7 0 0 1 7 7V{HEAD}H0z"/>'
        f'<text class="kind" x="10" y="17">{escape(cut(box.kind, _LETTERS))}</text>'
        f'<text class="name" x="10" y="{HEAD + 16}">{escape(_end_of(box.name))}</text>'
        f"{lines}<title>{label}</title></g>"
    )


def _end_of(text: str) -> str:
    """Long names differ at their end: ``...conv2d_3/BiasAdd``."""
    return text if len(text) <= _LETTERS else f"\N{HORIZONTAL ELLIPSIS}{text[1 - _LETTERS :]}"
