"""Tables of the documentation that benchmarks write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "speed.md"


def write_table(
    name: str, header: Sequence[str], rows: Iterable[Sequence[str]], page: Path = PAGE
) -> None:
    """Put a table between its two marks; all columns but the first are numbers."""
    start, end = f"<!-- {name}: written by `make bench` -->", f"<!-- end of {name} -->"
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]
    before, rest = page.read_text(encoding="utf-8").split(start)
    after = rest.split(end)[1]
    text = "\n".join([f"{before}{start}", "", *lines, "", f"{end}{after}"])
    page.write_text(text, encoding="utf-8")
