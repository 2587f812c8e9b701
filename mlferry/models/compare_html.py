"""A comparison as HTML: a fragment for notebooks, and a page."""

from __future__ import annotations

import math
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape

from mlferry.models import charts, html_page
from mlferry.models.charts import Mark
from mlferry.models.comparison import LABELS, Comparison, Row, answers, show
from mlferry.models.facts import readable_size
from mlferry.models.html_page import table, tiles

_LEAST = 12  # cards of samples that agree least
_CLASSES = 30  # rows of classes
_SMALLEST = -7  # power of ten at the bottom of the chart over the depth
_LOST = 0.5  # of a value: larger differences stand out


def fragment(report: Comparison) -> str:
    """What a notebook shows."""
    return html_page.fragment(_body(report))


def page(every: Mapping[str, Comparison], title: str) -> str:
    """A self-contained page, with the numbers as JSON.

    Args:
        every: comparisons with one reference, by the name of the other model.
        title: of the page.
    """
    if len(every) == 1:
        (report,) = every.values()
        return html_page.page(_body(report), title, report.to_dict())
    parts = ["<h2>Size and agreement</h2>", _sizes(every), _overview(every)]
    for name, report in every.items():
        parts.append(f"<details><summary>{escape(name)}</summary>{_body(report)}</details>")
    facts = {"reports": {name: report.to_dict() for name, report in every.items()}}
    return html_page.page("".join(parts), title, facts)


def _body(report: Comparison) -> str:
    samples = f"{report.count} sample{'s' * (report.count != 1)}"
    parts = [f"<h2>Compared {samples}</h2>", tiles(_figures(report)), _outputs(report)]
    if report.sizes is not None and report.sizes[0] != report.sizes[1] and _agreement(report):
        parts += ["<h2>Size and agreement</h2>", _sizes({"": report})]
    if report.count > 1:
        parts += ["<h2>Agree least</h2>", _cards(report)]
        parts += _classes(report)
    elif report.pictures:
        parts.append(_cards(report))
    if report.depth:
        parts += ["<h2>Difference over the depth of the network</h2>", _depth(report)]
    if report.unreadable:
        parts += ["<h2>Not readable</h2>", table(report.unreadable.items())]
    return "".join(parts)


def _figures(report: Comparison) -> Iterator[tuple[str, str, str]]:
    """The most important figures: a number, its name, and a note."""
    main = _agreement(report)
    if main is not None:
        key, value, interval = main
        single = report.count == 1 and key.startswith("top")
        text = ("agrees" if value else "differs") if single else show(key, value)
        note = ""
        if interval is not None and not single:
            note = f"{100 * interval[0]:.1f} to {interval[1]:.1%} in 95 % of cases"
        yield text, LABELS[key].rstrip(":"), note
    differs = [row for row in report.rows if row.numbers.get("top1") is False]
    if any("top1" in row.numbers for row in report.rows) and report.count > 1:
        count = len({row.sample for row in differs})
        yield f"{count} of {report.count}", "samples differ", ""
    if report.sizes is not None:
        one, other = report.sizes
        ratio = one / other if other else math.inf
        note = f"{ratio:.2f} times smaller" if ratio > 1.005 else ""
        yield f"{readable_size(one)} → {readable_size(other)}", "size", note


def _agreement(report: Comparison) -> tuple[str, float, tuple[float, float] | None] | None:
    """The first of these that an output has, with its interval."""
    for key in ("top1", "snr"):
        for output in report.outputs.values():
            if key in output.numbers:
                return key, output.numbers[key], output.intervals.get(key)
    return None


def _outputs(report: Comparison) -> str:
    outputs = list(report.outputs.values())
    keys = [key for key in LABELS if any(key in output.keys for output in outputs)]
    rows = [
        [outputs[0].label(key).rstrip(":"), *(output.shown(key) for output in outputs)]
        for key in keys
    ]
    return table(rows, ["", *(output.name for output in outputs)])


def _sizes(every: Mapping[str, Comparison]) -> str:
    """Size against agreement; the reference agrees with itself."""
    marks = []
    keys = set()
    largest = max((max(one.sizes) for one in every.values() if one.sizes is not None), default=0)
    unit, name_of_unit = (1e6, "MB") if largest >= 1e6 else (1e3, "kB")
    for name, report in every.items():
        main = _agreement(report)
        if report.sizes is None or main is None or not math.isfinite(main[1]):
            continue
        key, value, interval = main
        keys.add(key)
        size = readable_size(report.sizes[1])
        text = f"{name + ': ' if name else ''}{size}, {show(key, value)}"
        at = report.sizes[1] / unit
        marks.append(Mark(at, value, text, name or size, interval, group="models"))
    if not marks or len(keys) > 1:
        return ""
    key = keys.pop()
    full = next(report.sizes[0] for report in every.values() if report.sizes is not None)
    if key == "top1":
        label = f"the first model: {readable_size(full)}"
        marks.append(Mark(full / unit, 1.0, label, "first", group="models"))
        lows = [mark.interval[0] if mark.interval else mark.y for mark in marks]
        y = charts.percent(LABELS[key].rstrip(":"), lows)
    else:
        y = charts.linear("SNR", [mark.y for mark in marks], " dB", zero=True)
    marks.sort(key=lambda mark: mark.x)
    x = charts.linear(
        "size", [mark.x for mark in marks] + [full / unit], f" {name_of_unit}", zero=True
    )
    return charts.chart(marks, x, y)


def _overview(every: Mapping[str, Comparison]) -> str:
    rows = []
    for name, report in every.items():
        main = _agreement(report)
        size = "" if report.sizes is None else readable_size(report.sizes[1])
        text = "" if main is None else show(main[0], main[1])
        label = "" if main is None else LABELS[main[0]].rstrip(":")
        rows.append([name, size, label, text])
    return table(rows, ["Model", "Size", "", ""])


def _cards(report: Comparison) -> str:
    """The samples that agree least, with their pictures and both answers."""
    seen: dict[str, list[Row]] = {}
    for row in report.worst(len(report.rows)):
        seen.setdefault(row.sample, []).append(row)
    cards = []
    for sample, rows in [*seen.items()][:_LEAST]:
        picture = report.pictures.get(sample)
        shown = ""
        if picture is not None:
            data = b64encode(picture).decode()
            shown = f'<img alt="" src="data:image/png;base64,{data}">'
        named = next((row for row in rows if "first_score" in row.numbers), None)
        named = named or next((row for row in rows if "first" in row.numbers), None)
        lines = []
        if named is not None:
            first, second = answers(named.numbers)
            same = named.numbers["first"] == named.numbers["second"]
            other = "" if same else ' class="differs"'
            lines.append(f"<div>{escape(first)}</div><div{other}>{escape(second)}</div>")
        for row in rows:
            numbers = _measures(row)
            if numbers:
                prefix = f"{row.output}: " if len(report.outputs) > 1 else ""
                lines.append(f"<small>{escape(prefix + numbers)}</small>")
        cards.append(
            f'<div class="card">{shown}<div><b>{escape(sample)}</b>{"".join(lines)}</div></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _measures(row: Row) -> str:
    keys = ("snr", "kl", "largest_difference")
    return ", ".join(
        f"{LABELS[key].rstrip(':')} {show(key, row.numbers[key])}"
        for key in keys
        if key in row.numbers
    )


def _classes(report: Comparison) -> Iterator[str]:
    """How often the second model agrees, by the class that the first answers; the worst first."""
    for name, output in report.outputs.items():
        rows = [row for row in report.rows if row.output == name and "first" in row.numbers]
        if not rows or (output.kind == "label" and _has_scores(report)):
            continue
        count = Counter(row.numbers["first"] for row in rows)
        right = Counter(row.numbers["first"] for row in rows if row.numbers["top1"])
        order = sorted(count, key=lambda each: (right[each] / count[each], -count[each]))
        if len(order) < 2:
            continue
        yield f"<h2>Agreement by class of the first model{_of(name, report)}</h2>"
        yield charts.bars(
            (str(each), right[each] / count[each], f"{right[each]} of {count[each]}")
            for each in order[:_CLASSES]
        )
        rest = len(order) - _CLASSES
        if rest > 0:
            yield f"<p>and {rest} more classes, which agree as well as the last one or better</p>"


def _has_scores(report: Comparison) -> bool:
    """Whether an output says more than the label does."""
    return any(output.kind == "probabilities" for output in report.outputs.values())


def _of(name: str, report: Comparison) -> str:
    return f": {escape(name)}" if len(report.outputs) > 2 else ""


def _depth(report: Comparison) -> str:
    """How far values inside are apart, as dots, from the first layer to the last."""
    marks = []
    for index, each in enumerate(report.depth):
        is_finite = math.isfinite(each.relative)
        text = f"{each.relative:.3%}" if is_finite else "other shapes, or values out of range"
        marks.append(
            Mark(
                index + 1,
                max(each.relative, 10.0**_SMALLEST) if is_finite else 1.0,
                f"{each.kind} {each.layer}: {text}",
                bad=not each.relative <= _LOST,
                group="depth",
            )
        )
    least = report.worst(1)[0].sample
    x = charts.linear(f"layer, from first to last, for {least}", [1, len(marks)])
    y = charts.powers("difference, as a part of the value", _SMALLEST, 0)
    return charts.chart(marks, x, y, width=900, dot=3)
