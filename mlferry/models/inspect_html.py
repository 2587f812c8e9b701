"""The facts about a model as HTML: a fragment for notebooks, and a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from mlferry.models import charts, html_page
from mlferry.models.facts import DescribedFeature, Facts, LayerWeights, readable_size
from mlferry.models.html_page import table, tiles

_TIMES = " \N{MULTIPLICATION SIGN} "
_LAYERS = 24  # rows of layers with weights that are open at once


def fragment(description: Facts) -> str:
    """A fragment for notebooks."""
    return html_page.fragment(_body(description))


def page(description: Facts, title: str = "Core ML model") -> str:
    """A self-contained page, with the facts as JSON."""
    return html_page.page(_body(description), title, description.to_dict())


def _body(d: Facts) -> str:
    parts = [tiles(_figures(d)), _systems(d)]
    parts.append(table((label, value) for label, value in d.facts() if label not in _SHOWN))
    for title, described in d.interface():
        parts += [f"<h2>{title.capitalize()}</h2>", _ends(described)]
    if d.labels:
        labels = ", ".join(map(escape, d.labels))
        parts.append(
            f"<h2>Class labels</h2><details><summary>{escape(d.label_text())}</summary>"
            f"{labels}</details>"
        )
    if d.dependencies:
        parts.append("<h2>Dependencies</h2>")
    for needed in d.classes():
        parts.append(
            f'<div class="needed"><b>{escape(needed.title())}</b>{table(needed.details)}</div>'
        )
    parts.append(_problems(d.problems))
    if d.has_network:
        parts += _stored(d)
        parts += [f"<h2>{d.parts.capitalize()} ({sum(d.layers.values())})</h2>", _kinds(d.layers)]
    if d.compressed:
        rows = table(each.cells() for each in d.compressed)
        opened = " open" * (len(d.compressed) <= _LAYERS)
        parts.append(f"<h2>Compressed weights ({len(d.compressed)})</h2>")
        parts.append(f"<details{opened}><summary>how they are stored</summary>{rows}</details>")
    for inner in d.models:
        parts.append(
            f"<details><summary>{escape(inner.kind)}, {readable_size(inner.size)}</summary>"
            f"{_body(inner)}</details>"
        )
    return "".join(parts)


_SHOWN = ("specification version",)


def _figures(d: Facts) -> Iterator[tuple[str, str, str]]:
    yield _KINDS.get(d.kind, d.kind), d.kind, ""
    total = sum(each.size for each in d.by_layer)
    yield readable_size(max(d.size, total)), "size", ""
    if d.has_network:
        count = sum(d.layers.values())
        yield f"{count:,}", d.parts, f"{len(d.layers)} kinds"
        yield _short(sum(d.weights.values())), "weights", d.weight_text()
    if d.labels:
        yield f"{len(d.labels):,}", "classes", ""
    if d.dependencies:
        count = len(d.classes())
        yield str(count), f"class{'es' * (count > 1)} of your own", "an app must bring"


_KINDS = {
    "neuralNetwork": "Neural network",
    "neuralNetworkClassifier": "Classifier",
    "neuralNetworkRegressor": "Regressor",
    "mlProgram": "ML Program",
    "pipeline": "Pipeline",
    "pipelineClassifier": "Pipeline",
    "pipelineRegressor": "Pipeline",
    "customModel": "Custom model",
    "treeEnsembleClassifier": "Trees",
    "treeEnsembleRegressor": "Trees",
    "glmClassifier": "Linear model",
    "glmRegressor": "Linear model",
    "supportVectorClassifier": "Support vectors",
    "supportVectorRegressor": "Support vectors",
}


def _short(count: int) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _systems(d: Facts) -> str:
    badges = [f"{name} {first} or newer" for name, first in d.systems.items()]
    badges.append(f"specification version {d.specification_version}")
    content = "".join(f'<span class="badge">{escape(each)}</span>' for each in badges)
    return f"<p>{content}</p>"


def _ends(described: Iterable[DescribedFeature]) -> str:
    """Inputs or outputs, each with a picture of what it is."""
    content = "".join(
        f'<div class="end">{_icon(each.type)}<div><b>{escape(each.name)}</b>'
        f"<div>{escape(each.type)}</div><small>{escape(each.description)}</small></div></div>"
        for each in described
    )
    return f'<div class="ends">{content}</div>'


def _icon(type_text: str) -> str:
    """A picture of a type of values."""
    word = type_text.split(maxsplit=1)[0] if type_text else ""
    return (
        '<svg viewBox="0 0 44 44" fill="none" stroke="currentColor" stroke-width="2" '
        f'stroke-linejoin="round" aria-hidden="true">{_ICONS.get(word, _ICONS[""])}</svg>'
    )


_ICONS = {
    "image": '<rect x="4" y="8" width="36" height="28" rx="4"/><circle cx="15" cy="18" r="3"/>'
    '<path d="M6 33l10-9 7 6 8-10 8 9"/>',
    "multi-array": '<path d="M10 14h20v20H10zM10 24h20M20 14v20M10 14l6-6h20v20l-6 6M30 14l6-6"/>',
    "dictionary": '<rect x="6" y="6" width="32" height="32" rx="4"/>'
    '<path d="M12 15h6M12 22h6M12 29h6M23 15h10M23 22h7M23 29h4" stroke-width="3"/>',
    "string": '<path d="M10 12V8h24v4M22 8v28M17 36h10"/>',
    "": '<path d="M16 8l-4 28M31 8l-4 28M8 17h29M7 27h29"/>',
}


def _stored(d: Facts) -> Iterator[str]:
    """How weights are stored: in total, and by layer, the largest first."""
    total = sum(d.weights.values()) or 1
    yield "<h2>Storage precision</h2>"
    yield (
        charts.bars((kind, count / total, f"{count:,}") for kind, count in d.weights.items())
        or "no weights"
    )
    if not d.by_layer:
        return
    yield "<h2>Weights by layer</h2>"
    order = sorted(d.by_layer, key=lambda each: -each.size)
    yield _layers(order[:_LAYERS], order[0].size)
    if len(order) > _LAYERS:
        rest = order[_LAYERS:]
        size = readable_size(sum(each.size for each in rest))
        yield (
            f"<details><summary>{len(rest)} more layers, {size}</summary>"
            f"{_layers(rest, order[0].size)}</details>"
        )


def _layers(rows: Sequence[LayerWeights], most: int) -> str:
    body = "".join(
        f"<tr><th>{escape(each.layer)}</th><td>{escape(each.kind)}</td>"
        f"<td>{_TIMES.join(map(str, each.shape))}</td>"
        f"<td>{each.count:,} {escape(each.encoding)}</td>"
        f"<td>{readable_size(each.size)}</td><td class='wide'><span class='bar' "
        f"style='width:{100 * each.size / (most or 1):.1f}%'></span></td></tr>"
        for each in rows
    )
    head = "<tr><th>layer</th><th></th><th>largest weight</th><th>values</th><th>size</th></tr>"
    return f"<table class='bars by-layer'>{head}{body}</table>"


def _kinds(layers: dict[str, int]) -> str:
    most = max(layers.values(), default=1)
    return charts.bars((kind, count / most, str(count)) for kind, count in layers.items())


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    items = "".join(f'<li class="problem">{escape(problem)}</li>' for problem in problems)
    return f"<h2>Problems</h2><ul>{items}</ul>"
