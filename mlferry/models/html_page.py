"""What the reports share that are HTML: the look, and pages that load nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

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


def fragment(body: str, title: str = "") -> str:
    """What a notebook shows, below a title."""
    head = f"<h1>{escape(title)}</h1>" if title else ""
    return f'<div class="mlferry"><style>{_STYLE}</style>{head}{body}</div>'


def page(body: str, title: str, facts: Mapping[str, Any]) -> str:
    """A file of its own, which loads nothing; the facts are in it as JSON, too."""
    data = json.dumps(facts, default=str).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        f"</title><style>{_PAGE_STYLE}</style></head><body>{fragment(body, title)}"
        f'<script type="application/json" id="facts">{data}</script></body></html>\n'
    )


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table whose first column is bold; nothing where there are no rows."""
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{f'<tr>{titles}</tr>' if titles else ''}{body}</table>" if body else ""
