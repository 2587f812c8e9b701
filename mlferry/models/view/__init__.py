"""See a model: its graph as a page of its own, in the browser."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlferry.custom import CustomLayer
from mlferry.errors import MissingDependencyError, ModelFileError, SpecError
from mlferry.models.facts import WeightFacts
from mlferry.models.view.graph import graph_of
from mlferry.models.view.page import page
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
    open_browser: bool,
    stored: Sequence[WeightFacts] = (),
) -> Path:
    """Write the page of a model, and open it; see `mlferry.visualize_spec`.

    Args:
        spec: of the model.
        classes: those of its custom layers, by name.
        shapes: of inputs, where they differ from the described ones.
        path: of the page; None for a temporary file.
        title: of the page.
        open_browser: whether to open it.
        stored: the weights that are in fewer bits, whose schemes are shown.
    """
    told = {each.place: each.text() for each in stored}
    text = page(graph_of(spec, classes, shapes, told), title)
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="mlferry-")) / f"{Path(title).stem or 'model'}.html"
    io.write_atomic(Path(path), text.encode("utf-8"))
    if open_browser:
        import webbrowser

        webbrowser.open(Path(path).resolve().as_uri())
    return Path(path)


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
