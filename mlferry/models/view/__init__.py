"""Show the graph of a model in the browser, as a self-contained page."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from mlferry.custom import CustomLayer
from mlferry.errors import MissingDependencyError, ModelFileError, SpecError
from mlferry.models.compression import found_weights
from mlferry.models.facts import WeightFacts
from mlferry.models.view.graph import StoredFacts, graph_of
from mlferry.models.view.page import page
from mlferry.models.view.stored import weight_details
from mlferry.programs.values import Weights
from mlferry.progress import in_notebook
from mlferry.spec import io
from mlferry.spec.proto import model_pb2

__all__ = ["draw", "open_netron", "parse_shape"]


def draw(
    spec: model_pb2.Model,
    classes: Mapping[str, type[CustomLayer]],
    shapes: Mapping[str, Sequence[int]],
    path: str | os.PathLike[str] | None,
    title: str,
    *,
    open_browser: bool | None,
    weight_facts: Sequence[WeightFacts] = (),
    weights: Weights | None = None,
) -> Path:
    """Write the page of a model, and open it; see `mlferry.visualize_spec`.

    Args:
        spec: of the model.
        classes: those of its custom layers, by name.
        shapes: of inputs, where they differ from the described ones.
        path: of the page; None for a temporary file.
        title: of the page.
        open_browser: whether to open it; None opens it unless a notebook shows it.
        weight_facts: the compressed weights, to show their schemes.
        weights: the files of a program's weights.
    """
    texts = {each.place: each.text() for each in weight_facts}
    facts = StoredFacts(texts, weight_details(found_weights(spec, weights)))
    text = page(graph_of(spec, classes, shapes, facts), title)
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="mlferry-")) / f"{Path(title).stem or 'model'}.html"
    io.write_atomic(Path(path), text.encode("utf-8"))
    if open_browser or (open_browser is None and not in_notebook()):
        import webbrowser

        webbrowser.open(Path(path).resolve().as_uri())
    return DrawnPage(path)


class DrawnPage(type(Path())):  # type: ignore[misc] # a Path is made as one of this system's own class
    """The path of a page, which a notebook shows in its cell."""

    def _repr_html_(self) -> str:
        text = escape(self.read_text(encoding="utf-8"), quote=True)
        return (
            f'<iframe srcdoc="{text}" sandbox="allow-scripts allow-downloads" '
            'style="width:100%;height:620px;border:1px solid #8884;border-radius:8px"></iframe>'
        )


def open_netron(path: str | os.PathLike[str]) -> None:
    """Open a model file in Netron and serve it until interrupted.

    Raises:
        MissingDependencyError: netron is missing.
        ModelFileError: there is no such file.
    """
    if not Path(path).is_file():
        raise ModelFileError(f"there is no file {path}")
    try:
        netron: Any = importlib.import_module("netron")
    except ImportError as error:
        raise MissingDependencyError(
            "Netron is missing: pip install 'mlferry[netron]'; without --netron, mlferry draws "
            "the model itself"
        ) from error
    netron.start(str(path))
    netron.wait()


def parse_shape(text: str) -> tuple[int, ...]:
    """``1,3,224,224`` as a shape.

    Raises:
        SpecError: it is something else.
    """
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise SpecError(f"shape {text!r}: write positive extents with commas, e.g. 1,3,224,224")
    return shape
