"""The facts about a model as HTML: a part for notebooks, and a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mlferry.models import html_page
from mlferry.models.facts import Facts, readable_size
from mlferry.models.html_page import table

_BAR = 160  # pixels of the longest bar of the histogram


def fragment(description: Facts) -> str:
    """What a notebook shows."""
    return html_page.fragment(_body(description))


def page(description: Facts, title: str = "Core ML model") -> str:
    """A file of its own, which loads nothing; the facts are in it as JSON, too."""
    return html_page.page(_body(description), title, description.to_dict())


def _body(d: Facts) -> str:
    parts = [f"<h2>{escape(d.kind)}, {readable_size(d.size)}</h2>", table(d.facts())]
    for title, described in d.interface():
        parts.append(f"<h2>{title.capitalize()}</h2>")
        parts.append(table((f.name, f.type, f.description) for f in described))
    if d.labels:
        shown = ", ".join(map(escape, d.labels))
        parts.append(
            f"<h2>Class labels</h2><details><summary>{escape(d.label_text())}</summary>"
            f"{shown}</details>"
        )
    if d.dependencies:
        parts.append("<h2>Dependencies</h2>")
    for needed in d.dependencies:
        where = f" ({escape(needed.name)})" if needed.name else ""
        parts.append(
            f'<div class="needed">{needed.kind} <b>{escape(needed.class_name)}</b>{where}'
            f"{table(needed.details())}</div>"
        )
    if d.has_network:
        weights = ((kind, f"{count:,}") for kind, count in d.weights.items())
        parts += ["<h2>Storage precision</h2>", table(weights) or "no weights"]
        parts += [
            f"<h2>{d.parts.capitalize()} ({sum(d.layers.values())})</h2>",
            _histogram(d.layers),
        ]
    if d.compressed:
        parts.append(f"<h2>Compressed weights ({len(d.compressed)})</h2>")
        parts.append(table(each.cells() for each in d.compressed))
    for inner in d.models:
        parts.append(
            f"<details><summary>{escape(inner.kind)}, {readable_size(inner.size)}</summary>"
            f"{_body(inner)}</details>"
        )
    parts.append(_problems(d.problems))
    return "".join(parts)


def _histogram(layers: dict[str, int]) -> str:
    most = max(layers.values(), default=1)
    body = "".join(
        f"<tr><th>{escape(kind)}</th><td>{count}</td>"
        f'<td><span class="bar" style="width:{max(1, _BAR * count // most)}px"></span></td></tr>'
        for kind, count in layers.items()
    )
    return f"<table>{body}</table>"


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    items = "".join(f'<li class="problem">{escape(problem)}</li>' for problem in problems)
    return f"<h2>Problems</h2><ul>{items}</ul>"
