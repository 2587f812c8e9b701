"""The facts about a model for a terminal, drawn by rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mlferry.models.facts import DescribedFeature, Facts, readable_size
from mlferry.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

_BAR = 30  # cells of the longest bar of the histogram


def renderables(d: Facts) -> Iterator[RenderableType]:
    """What to print, in order."""
    from rich.panel import Panel
    from rich.text import Text

    yield Panel(_table(d.facts()), title=f"{d.kind}, {readable_size(d.size)}", title_align="left")
    for title, described in d.interface():
        yield _features(title.capitalize(), described)
    if d.labels:
        yield Text.assemble(("Class labels  ", "bold"), printable(d.label_text()))
    for needed in d.classes():
        title = printable(f"dependency: {needed.title()}")
        yield Panel(
            _table(needed.details), title=Text(title), title_align="left", border_style="yellow"
        )
    if d.models:
        inner = ((model.kind, readable_size(model.size)) for model in d.models)
        yield _titled("Models", inner)
    if d.has_network:
        yield _titled("Storage precision", ((k, f"{n:,}") for k, n in d.weights.items()))
        most = max(d.layers.values(), default=1)
        bars = (
            (kind, f"{count:>5}  {'█' * max(1, _BAR * count // most)}")
            for kind, count in d.layers.items()
        )
        yield _titled(f"Layers ({sum(d.layers.values())})", bars)
    if d.compressed:
        rows = ((f"{each.weight} {each.shape}", each.text()) for each in d.compressed)
        yield _titled(f"Compressed weights ({len(d.compressed)})", rows)
    for problem in d.problems:
        yield Text(problem, style="yellow" if problem.startswith("note") else "red")


def _table(rows: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for label, value in rows:
        table.add_row(Text(printable(label), style="bold"), Text(printable(value, lines=True)))
    return table


def _titled(title: str, rows: Iterable[tuple[str, str]]) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    return Group(Text(title, style="bold cyan"), Padding(_table(rows), (0, 0, 1, 2)))


def _features(title: str, described: Sequence[DescribedFeature]) -> RenderableType:
    rows = (
        (f.name, f"{f.type}  ({f.description})" if f.description else f.type) for f in described
    )
    return _titled(title, rows)
