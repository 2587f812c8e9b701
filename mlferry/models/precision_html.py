"""A report on half precision as a page, with a plot over the depth of the program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, Protocol

from mlferry.models import charts, html_page
from mlferry.models.charts import Mark
from mlferry.models.html_page import table

_LEAST = -7  # power of ten at the bottom of the plot


class PrecisionPage(Protocol):
    """What the page needs of a report."""

    title: str
    outputs: dict[str, float]

    @property
    def operations(self) -> Sequence[Any]:
        """The operations in their order."""

    @property
    def ranked(self) -> Sequence[Any]:
        """The worst first."""

    @property
    def keep_in_float32(self) -> list[str]:
        """The values that should stay in float32."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values."""


def percent(error: float) -> str:
    """An error as people read it."""
    return f"{error:.3%}" if math.isfinite(error) else "infinite"


def page(report: PrecisionPage) -> str:
    """A self-contained page, with the facts as JSON."""
    return html_page.page(_body(report), report.title, report.to_dict())


def fragment(report: PrecisionPage) -> str:
    """A fragment for notebooks."""
    return html_page.fragment(_body(report))


def _body(report: PrecisionPage) -> str:
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
    names = ", ".join(report.keep_in_float32) or "none"
    return (
        f"<h2>Error over the depth of the program</h2>{_plot(report.operations)}"
        f"<h2>Outputs</h2>{outputs}"
        f"<h2>Keep in float32</h2><p>{escape(names)}</p>"
        "<h2>Operations, the worst first</h2><p>value, operation, overflows, vanishing values, "
        f"largest value, error, error of its inputs</p>{worst}"
    )


def _plot(operations: Sequence[Any]) -> str:
    """A dot per operation; those that should stay in float32 stand out."""
    marks = [
        Mark(
            index + 1,
            min(max(each.error, 10.0**_LEAST), 1.0) if each.error == each.error else 1.0,
            str(each),
            bad=each.is_cause,
            group="operations",
        )
        for index, each in enumerate(operations)
    ]
    x = charts.linear("operation, from first to last", [1, max(len(marks), 2)])
    y = charts.powers("error, as a part of the largest value", _LEAST, 0)
    return charts.chart(marks, x, y, width=900, dot=3)
