"""What mkdocs calls while it builds the site: pages of the notebooks, and links out of docs/.

Notebooks become pages with their outputs, so that the site has them without a notebook server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "examples").glob("*/*.ipynb"))}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook: ``notebooks/NAME.md``."""
    for name, path in NOTEBOOKS.items():
        text = markdown_of(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, f"notebooks/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Guides come first in the search; links to notebooks lead to their pages."""
    place = page.file.src_uri
    boost = 0.3 if place.startswith("reference/") or place in _TABLES else 2
    page.meta.setdefault("search", {"boost": boost})
    return re.sub(r"\]\(\.\./examples/\w+/(\w+)\.ipynb\)", r"](notebooks/\1.md)", markdown)


_TABLES = {
    f"{name}.md"
    for name in (
        "coremltools-names", "device-choices", "exported-layers", "keras", "layers", "onnx",
        "program-layers", "speed", "tensorflow",
    )
}  # fmt: skip


def markdown_of(notebook: Mapping[str, Any]) -> str:
    """A notebook as Markdown."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell(cell)) + "\n"


def _cell(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield _links(source)
    elif source.strip():
        yield f"```python\n{source}\n```"
        for output in cell["outputs"]:
            yield from _output(output)


def _output(output: Mapping[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if output["output_type"] == "stream":
        text = "".join(output["text"])
    elif "image/png" in data:
        picture = "".join(data["image/png"]).replace("\n", "")
        yield f'<img alt="the output" src="data:image/png;base64,{picture}">'
        return
    elif "text/html" in data:
        # without empty lines, so that Markdown takes it as one block
        lines = "".join(data["text/html"]).splitlines()
        yield '<div class="output">' + "\n".join(line for line in lines if line.strip()) + "</div>"
        return
    else:
        text = "".join(data.get("text/plain", ""))
    if text.strip():
        shown = escape(_COLOURS.sub("", text).rstrip())
        yield f'<div class="output"><pre>{shown.replace(chr(10), "&#10;")}</pre></div>'


def _links(source: str) -> str:
    """Links to another notebook, or to its folder, lead to its page."""
    for name in NOTEBOOKS:
        source = re.sub(rf"\]\(\.\./{name}(/{name}\.ipynb)?\)", f"]({name}.md)", source)
    return source
