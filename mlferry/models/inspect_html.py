"""The facts about a model as HTML: a part for notebooks, and a page of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from mlferry.models.inspect import Description, Feature, readable_size

_STYLE = """
.mlferry{font:14px/1.5 system-ui,sans-serif;max-width:60em}
.mlferry h1{font-size:1.4em;margin:0 0 .4em}
.mlferry h2{font-size:1.05em;margin:1.2em 0 .3em}
.mlferry table{border-collapse:collapse}
.mlferry th,.mlferry td{padding:.15em 1em .15em 0;text-align:left;vertical-align:top;
border-bottom:1px solid #8883}
.mlferry th{font-weight:600}
.mlferry .needed{border-left:3px solid #c2410c;padding-left:.8em;margin:.5em 0}
.mlferry .bar{display:inline-block;height:.7em;background:#4f7cac;vertical-align:baseline}
.mlferry .problem{color:#b91c1c}
"""
_PAGE_STYLE = "body{margin:2em;background:#fff;color:#1a1a1a}@media(prefers-color-scheme:dark)\
{body{background:#161616;color:#e8e8e8}}"
_BAR = 160  # pixels of the longest bar of the histogram


def fragment(description: Description, title: str = "") -> str:
    """What a notebook shows, below a title."""
    head = f"<h1>{escape(title)}</h1>" if title else ""
    return f'<div class="mlferry"><style>{_STYLE}</style>{head}{_body(description)}</div>'


def page(description: Description, title: str = "Core ML model") -> str:
    """A file of its own, which loads nothing; the facts are in it as JSON, too."""
    facts = json.dumps(description.to_dict()).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_PAGE_STYLE}</style></head><body>{fragment(description, title)}"
        f'<script type="application/json" id="facts">{facts}</script></body></html>\n'
    )


def _body(d: Description) -> str:
    parts = [f"<h2>{escape(d.kind)}, {readable_size(d.size)}</h2>", _table(d.facts())]
    parts += [_features("Inputs", d.inputs), _features("Outputs", d.outputs)]
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
            f"{_table(needed.details())}</div>"
        )
    if d.has_network:
        weights = ((kind, f"{count:,}") for kind, count in d.weights.items())
        parts += ["<h2>Storage precision</h2>", _table(weights) or "no weights"]
        parts += [f"<h2>Layers ({sum(d.layers.values())})</h2>", _histogram(d.layers)]
    for inner in d.models:
        parts.append(
            f"<details><summary>{escape(inner.kind)}, {readable_size(inner.size)}</summary>"
            f"{_body(inner)}</details>"
        )
    parts.append(_problems(d.problems))
    return "".join(parts)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{body}</table>" if body else ""


def _features(title: str, described: Sequence[Feature]) -> str:
    body = "".join(
        f"<tr><th>{escape(f.name)}</th><td>{escape(f.type)}</td><td>{escape(f.description)}</td>"
        "</tr>"
        for f in described
    )
    return f"<h2>{title}</h2><table>{body}</table>"


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
