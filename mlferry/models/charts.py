"""Charts of reports, as SVG that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _RIGHT, _TOP, _BELOW, _HEIGHT = 64, 24, 34, 40, 260
_LETTER = 6.2  # the width of one, about


@dataclass(frozen=True)
class Mark:
    """A point of a chart.

    Attributes:
        x, y: where it is; y is finite.
        text: its tooltip.
        label: what is written beside it.
        interval: the ends of a vertical line through it.
        bad: whether it stands out.
        group: a line joins the marks of a group; "" for none.
    """

    x: float
    y: float
    text: str
    label: str = ""
    interval: tuple[float, float] | None = None
    bad: bool = False
    group: str = ""


@dataclass(frozen=True)
class ChartAxis:
    """An axis, from `low` to `high`; `log` for powers of ten.

    Attributes:
        ticks: where lines go, with what is written at them.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def part(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = (math.log10(each) for each in (low, high, at))
        return (at - low) / (high - low) if high > low else 0.5


def linear(title: str, values: Iterable[float], unit: str = "", *, zero: bool = False) -> ChartAxis:
    """An axis with about five round numbers around some values."""
    every = [*values, *([0.0] if zero else [])]
    low, high = min(every), max(every)
    span = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(each for each in (1, 2, 5, 10) if span / (step * each) <= 5)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    if low == high:
        low, high = low - step, high + step
    count = round((high - low) / step)
    ticks = [(low + index * step, f"{low + index * step:.6g}{unit}") for index in range(count + 1)]
    return ChartAxis(title, low, high, ticks)


def percent(title: str, values: Iterable[float]) -> ChartAxis:
    """An axis of percentages, up to 100 %."""
    least = min([*values, 1.0])
    low = next(each for each in (0.99, 0.95, 0.9, 0.8, 0.5, 0.0) if each <= least or each == 0)
    ticks = [low + (1 - low) * index / 5 for index in range(6)]
    return ChartAxis(title, low, 1.0, [(each, f"{100 * each:.4g} %") for each in ticks])


def powers(title: str, low: int, high: int) -> ChartAxis:
    """An axis from 10**low to 10**high."""
    ticks = [(10.0**power, f"1e{power}") for power in range(low, high + 1)]
    return ChartAxis(title, 10.0**low, 10.0**high, ticks, log=True)


def chart(
    marks: Sequence[Mark],
    x: ChartAxis,
    y: ChartAxis,
    *,
    width: int = 640,
    dot: float = 4,
) -> str:
    """Marks in a frame with both axes."""

    def across(value: float) -> float:
        return _LEFT + x.part(value) * (width - _LEFT - _RIGHT)

    def down(value: float) -> float:
        return _HEIGHT - _BELOW - y.part(value) * (_HEIGHT - _BELOW - _TOP)

    lines = [
        f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{down(at):.1f}" '
        f'y2="{down(at):.1f}"/><text x="{_LEFT - 8}" y="{down(at) + 4:.1f}" '
        f'text-anchor="end">{escape(text)}</text>'
        for at, text in y.ticks
    ]
    lines += [
        f'<text x="{across(at):.1f}" y="{_HEIGHT - _BELOW + 16}" text-anchor="middle">'
        f"{escape(text)}</text>"
        for at, text in x.ticks
    ]
    lines.append(
        f'<text class="title" x="{(width + _LEFT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x.title)}</text>"
        f'<text class="title" x="{_LEFT}" y="12">{escape(y.title)}</text>'
    )
    for index, group in enumerate(dict.fromkeys(mark.group for mark in marks if mark.group)):
        points = [mark for mark in marks if mark.group == group]
        path = "L".join(f"{across(each.x):.1f} {down(each.y):.1f}" for each in points)
        lines.append(f'<path class="line g{index % 6}" d="M{path}"/>')
    labels: list[tuple[float, float, float]] = []  # of labels: row, from, to
    groups = [*dict.fromkeys(mark.group for mark in marks)]
    for mark in marks:
        at, high = across(mark.x), down(mark.y)
        look = "bad" if mark.bad else f"g{groups.index(mark.group) % 6}"
        if mark.interval is not None:
            low, top = (down(each) for each in mark.interval)
            lines.append(
                f'<line class="interval {look}" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" '
                f'y2="{top:.1f}"/>'
            )
        lines.append(
            f'<circle class="{look}" cx="{at:.1f}" cy="{high:.1f}" r="{dot:g}">'
            f"<title>{escape(mark.text)}</title></circle>"
        )
        if mark.label:
            start, row = _free(mark.label, at, high, width, labels)
            lines.append(f'<text x="{start:.1f}" y="{row:.1f}">{escape(mark.label)}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y.title, quote=True)}">{"".join(lines)}</svg>'
    )


def _free(
    label: str, at: float, high: float, width: int, labels: list[tuple[float, float, float]]
) -> tuple[float, float]:
    """Where a label fits beside or below its mark without covering another."""
    size = len(label) * _LETTER
    start = at - 8 - size if at + 8 + size > width else at + 8
    row = high - 7
    while any(abs(row - y) < 12 and start < b and start + size > a for y, a, b in labels):
        row += 13
    labels.append((row, start, start + size))
    return start, row


def bars(rows: Iterable[tuple[str, float, str]]) -> str:
    """A bar per row, from 0 to 1, between a name and a text."""
    rows_html = "".join(
        f"<tr><th>{escape(name)}</th><td class='wide'><span class='bar' "
        f"style='width:{100 * min(max(part, 0.0), 1.0):.1f}%'></span></td><td>{escape(text)}</td>"
        "</tr>"
        for name, part, text in rows
    )
    return f"<table class='bars'>{rows_html}</table>" if rows_html else ""
