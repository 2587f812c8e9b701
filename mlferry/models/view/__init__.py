"""See a model: its graph as a page of its own, in the browser."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlferry.errors import MissingDependencyError, ModelFileError, SpecError
from mlferry.models.model import MLModel
from mlferry.models.view.graph import graph_of
from mlferry.models.view.page import page
from mlferry.spec import io

__all__ = ["open_netron", "parse_shape", "visualize_spec"]


def visualize_spec(
    model: Any,
    input_shape_dict: Mapping[str, Sequence[int]] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    open_browser: bool = True,
    title: str | None = None,
) -> Path:
    """Draw a model as a graph: layers with their parameters, blobs with their shapes.

    Custom layers stand out; pipelines, branches and loops open up. The page holds everything
    that it needs and loads nothing.

    Args:
        model: an `MLModel`, or what `MLModel` takes.
        input_shape_dict: shapes of inputs, batch included, of images (height, width), where
            they shall differ from the described ones.
        path: where to write the page; by default a temporary file.
        open_browser: whether to open it.
        title: of the page; by default the file's name, or the kind of the model.

    Returns:
        the path of the page.

    Raises:
        MissingDependencyError: igraph is missing.
        SpecError: there is no such input.
        ModelFileError: the page cannot be written.
    """
    if title is None:
        title = Path(model).name if isinstance(model, str | os.PathLike) else "Core ML model"
    loaded = model if isinstance(model, MLModel) else MLModel(model)
    graph = graph_of(loaded.get_spec(), loaded._classes.layers, input_shape_dict or {})
    text = page(graph, title)
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
