"""A report on half precision as a page, with a plot over the depth of the program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

from mlferry.models import html_page
from mlferry.models.html_page import table

_WIDTH, _HEIGHT, _LEFT, _BELOW = 900, 260, 60, 24
_LEAST = 1e-7  # what is drawn at the bottom


class PrecisionPage(Protocol):
    """What the page shows of a report."""

    title: str
    outputs: dict[str, float]

    @property
    def operations(self) -> Sequence[Any]:
        """In the order in which they run."""

    @property
    def ranked(self) -> Sequence[Any]:
        """The worst first."""

    @property
    def keep_in_float32(self) -> list[str]:
        """Those that should stay in float32."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""


def percent(error: float) -> str:
    """An error as people read it."""
    return f"{error:.3%}" if math.isfinite(error) else "infinite"


def page(report: PrecisionPage) -> str:
    """A file of its own, which loads nothing; the facts are in it as JSON, too."""
    outputs = table((name, percent(error)) for name, error in report.outputs.items())
    worst = table(
        (
            each.name,
            each.kind,
            f"{each.overflows:,}",
            f"{each.vanishes:,}",
            f"{each.largest:.4g}",
            percent(each.error),
            percent(each.error_of_inputs),
        )
        for each in report.ranked[:30]
    )
    kept = ", ".join(report.keep_in_float32) or "none"
    body = (
        f"<h2>Error over the depth of the program</h2>{_plot(report.operations)}"
        f"<h2>Outputs</h2>{outputs}"
        f"<h2>Keep in float32</h2><p>{escape(kept)}</p>"
        "<h2>Operations, the worst first</h2><p>value, operation, overflows, vanishing values, "
        f"largest value, error, error of its inputs</p>{worst}"
    )
    return html_page.page(body, report.title, report.to_dict())


def _plot(operations: Sequence[Any]) -> str:
    """A dot an operation; red where it should stay in float32."""
    height, width = _HEIGHT - _BELOW, _WIDTH - _LEFT
    lines = []
    for power in range(-7, 1):
        y = _y(10.0**power, height)
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="4" y="{y + 4:.1f}" font-size="11">1e{power}</text>'
        )
    step = width / max(len(operations), 1)
    dots = [
        f'<circle cx="{_LEFT + (index + 0.5) * step:.1f}" cy="{_y(each.error, height):.1f}" '
        f'r="3" fill="{"#c00" if each.is_cause else "#36c"}"><title>{escape(str(each))}</title>'
        "</circle>"
        for index, each in enumerate(operations)
    ]
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">'
        f"{''.join(lines)}{''.join(dots)}"
        f'<text x="{_LEFT}" y="{_HEIGHT - 6}" font-size="11">first operation</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 6}" font-size="11" text-anchor="end">last</text></svg>'
    )


def _y(error: float, height: int) -> float:
    share = math.log10(min(max(error, _LEAST), 1.0) / _LEAST) / -math.log10(_LEAST)
    return 6 + (1 - share) * (height - 12)
