"""A graph as a page of its own: SVG, a style sheet and a small script, nothing from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import Any

from mlferry.models.view.boxes import Box, BoxGraph
from mlferry.models.view.layout import BoxLayout, Point, lay_out

WIDTH, HEIGHT = 190, 44  # of a box, in pixels
COLUMN, ROW = 230, 108  # from box to box
LINE = 14  # from label to label
_LETTERS = 26  # that fit into a box


def page(graph: BoxGraph, title: str) -> str:
    """The page, as text."""
    graphs: list[str] = []
    facts: list[dict[str, Any]] = []
    _add(graph, title, -1, graphs, facts)
    data = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    files = resources.files("mlferry.models.view")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    script = files.joinpath("page.js").read_text(encoding="utf-8")
    body = files.joinpath("page.html").read_text(encoding="utf-8")
    for mark, text in (
        ("{{title}}", escape(title)),
        ("{{style}}", style),
        ("{{script}}", script),
        ("{{data}}", data),
        ("{{graphs}}", "\n".join(graphs)),
    ):
        body = body.replace(mark, text, 1)
    return body


def _add(
    graph: BoxGraph, title: str, parent: int, graphs: list[str], facts: list[dict[str, Any]]
) -> int:
    """Append a graph and those inside of its boxes; its number."""
    number = len(facts)
    entry: dict[str, Any] = {"title": title, "parent": parent, "boxes": []}
    facts.append(entry)
    graphs.append("")
    graphs[number] = _svg(graph, lay_out(graph), number)
    for box in graph.boxes:
        inside = [
            [name, _add(inner, f"{box.name}: {name}", number, graphs, facts)]
            for name, inner in box.inside
        ]
        entry["boxes"].append(
            {
                "name": box.name,
                "kind": box.kind,
                "role": box.role,
                "rows": box.rows,
                "inputs": box.inputs,
                "outputs": box.outputs,
                "inside": inside,
            }
        )
    return number


def _svg(graph: BoxGraph, layout: BoxLayout, number: int) -> str:
    places = [(x * COLUMN + COLUMN / 2, y * ROW + ROW / 2) for x, y in layout.boxes]
    width = max((x for x, _ in places), default=0) + COLUMN / 2
    height = max((y for _, y in places), default=0) + ROW / 2
    lines = [
        f'<svg class="graph" data-graph="{number}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'data-width="{width:.0f}" data-height="{height:.0f}">'
    ]
    lines += _edges(graph, layout)
    for index, (box, place) in enumerate(zip(graph.boxes, places, strict=True)):
        lines.append(_box(box, place, index))
    return "".join([*lines, "</svg>"])


def _edges(graph: BoxGraph, layout: BoxLayout) -> Iterator[str]:
    """Lines from box to box; upon them the shape of each blob, below the box that makes it."""
    labels: dict[tuple[int, str], str] = {}
    lines: dict[int, int] = {}
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        points = [(x * COLUMN + COLUMN / 2, y * ROW + ROW / 2) for x, y in route]
        (x, y), (u, v) = points[0], points[-1]
        points = [(x, y + HEIGHT / 2), *points[1:-1], (u, v - HEIGHT / 2)]
        yield (
            f'<g class="edge" data-from="{edge.start}" data-to="{edge.end}">'
            f'<path d="{_path(points)}"/><title>{escape(edge.blob)}: {escape(edge.label)}</title>'
            "</g>"
        )
        if edge.label and (edge.start, edge.blob) not in labels:
            lines[edge.start] = lines.get(edge.start, 0) + 1
            place = f'x="{x + 6:.0f}" y="{y + HEIGHT / 2 + LINE * lines[edge.start]:.0f}"'
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
    x, y = place[0] - WIDTH / 2, place[1] - HEIGHT / 2
    opens = " opens" if box.inside else ""
    label = escape(f"{box.kind} {box.name}", quote=True)
    return (
        f'<g class="box {box.role}{opens}" data-box="{index}" tabindex="0" role="button" '
        f'aria-label="{label}" transform="translate({x:.0f} {y:.0f})">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text class="kind" x="10" y="18">{escape(_cut(box.kind))}</text>'
        f'<text class="name" x="10" y="35">{escape(_end_of(box.name))}</text>'
        f"<title>{label}</title></g>"
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _end_of(text: str) -> str:
    """Long names differ at their end: ``...conv2d_3/BiasAdd``."""
    return text if len(text) <= _LETTERS else f"\N{HORIZONTAL ELLIPSIS}{text[1 - _LETTERS :]}"
