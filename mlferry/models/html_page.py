"""What HTML reports share: the look, and self-contained pages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
.mlferry{--soft:#7a8597;--line:#8884;--card:#8080801c;--main:#3b7dc4;--bad:#d2541b;
--a:#3b7dc4;--b:#b87a1f;--c:#2f9150;--d:#8656d8;--e:#c7487f;--f:#1d8a9e;
font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;color:inherit;max-width:62em}
.mlferry h1{font-size:1.6em;font-weight:650;margin:0 0 .5em;overflow-wrap:anywhere}
.mlferry h2{font-size:1.1em;font-weight:650;margin:1.8em 0 .5em}
.mlferry h3{font-size:1em;font-weight:600;margin:1em 0 .3em}
.mlferry table{border-collapse:collapse;font:inherit;color:inherit}
.mlferry th,.mlferry td{padding:.25em 1.2em .25em 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line);background:none;color:inherit}
.mlferry th{font-weight:600}
.mlferry td{font-variant-numeric:tabular-nums}
.mlferry small{display:block;color:var(--soft)}
.mlferry .needed{border-left:3px solid var(--bad);padding-left:.8em;margin:.5em 0}
.mlferry .bar{display:inline-block;height:.7em;background:var(--main);border-radius:2px;
vertical-align:baseline}
.mlferry .bars{width:100%;max-width:46em}
.mlferry .bars .wide{width:60%}
.mlferry .bars td{white-space:nowrap}
.mlferry .by-layer{max-width:none}.mlferry .by-layer .wide{width:22%}
.mlferry .by-layer th{overflow-wrap:anywhere;min-width:7em}
.mlferry .problem{color:#d13a3a}
.mlferry .differs{color:var(--bad);font-weight:600}
.mlferry .tiles,.mlferry .cards{display:flex;flex-wrap:wrap;gap:.8em;margin:.6em 0 1em}
.mlferry .tile{background:var(--card);border-radius:10px;padding:.7em 1.1em;min-width:9em}
.mlferry .tile b{display:block;font-size:1.45em;font-weight:650;line-height:1.25}
.mlferry .card{background:var(--card);border-radius:10px;padding:.6em;display:flex;gap:.7em;
width:17em;overflow-wrap:anywhere}
.mlferry .card>div{min-width:0}
.mlferry .card img{width:72px;height:72px;object-fit:contain;image-rendering:pixelated;
border-radius:6px;background:#0002;flex:none}
.mlferry .badge{display:inline-block;background:var(--card);border-radius:99px;padding:.15em .8em;
margin:0 .4em .3em 0}
.mlferry .chart{width:100%;height:auto;max-width:900px}
.mlferry .chart text{font-size:11px;fill:var(--soft)}
.mlferry .chart .title{fill:currentColor}
.mlferry .chart .grid{stroke:var(--line)}
.mlferry .chart .line{fill:none;stroke-width:1.5;opacity:.6}
.mlferry .chart .interval{stroke-width:2;opacity:.45}
.mlferry .chart circle{stroke:none}
.mlferry .chart .g0{fill:var(--a);stroke:var(--a)}.mlferry .chart .g1{fill:var(--b);stroke:var(--b)}
.mlferry .chart .g2{fill:var(--c);stroke:var(--c)}.mlferry .chart .g3{fill:var(--d);stroke:var(--d)}
.mlferry .chart .g4{fill:var(--e);stroke:var(--e)}.mlferry .chart .g5{fill:var(--f);stroke:var(--f)}
.mlferry .chart .line{fill:none}
.mlferry .chart .bad{fill:var(--bad);stroke:var(--bad)}
.mlferry details{margin:.4em 0}
.mlferry summary{cursor:pointer}
.mlferry .ends{display:grid;grid-template-columns:repeat(auto-fill,minmax(17em,1fr));gap:.8em}
.mlferry .end{background:var(--card);border-radius:10px;padding:.7em .9em;display:flex;gap:.8em;
overflow-wrap:anywhere}
.mlferry .end svg{flex:none;width:44px;height:44px;color:var(--main)}
.mlferry .end div{min-width:0}
"""
# Of a page: a notebook and a site have colours of their own, which the part of it inherits.
_PAGE_STYLE = "body{margin:2em auto;padding:0 1.2em;max-width:62em;background:#fff;color:#1a1c20}\
@media(prefers-color-scheme:dark){body{background:#15181d;color:#e6e8ec}}\
@media print{body{margin:0}}"


def fragment(body: str, title: str = "") -> str:
    """A fragment for notebooks, below a title."""
    head = f"<h1>{escape(title)}</h1>" if title else ""
    return f'<div class="mlferry"><style>{_STYLE}</style>{head}{body}</div>'


def page(body: str, title: str, facts: Mapping[str, Any]) -> str:
    """A self-contained page, with the facts as JSON."""
    data = json.dumps(facts, default=str).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}'
        f"</title><style>{_PAGE_STYLE}</style></head><body>{fragment(body, title)}"
        f'<script type="application/json" id="facts">{data}</script></body></html>\n'
    )


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table whose first column is bold; "" without rows."""
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(text)}</td>' for text in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{f'<tr>{titles}</tr>' if titles else ''}{body}</table>" if body else ""


def tiles(figures: Iterable[tuple[str, str, str]]) -> str:
    """The most important figures, each with a name and a note."""
    content = "".join(
        f'<div class="tile"><b>{escape(number)}</b>{escape(name)}'
        f"{f'<small>{escape(note)}</small>' if note else ''}</div>"
        for number, name, note in figures
    )
    return f'<div class="tiles">{content}</div>' if content else ""
