"""Draw a model in the browser."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlferry.models.compression import compressed_weights
from mlferry.models.model import MLModel, ModelSource
from mlferry.models.view import draw


def visualize_spec(
    model: ModelSource,
    input_shape_dict: Mapping[str, Sequence[int]] | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    open_browser: bool | None = None,
    title: str | None = None,
    against: ModelSource | None = None,
) -> Path:
    """Draw a model as a graph: layers with their parameters, blobs with their shapes.

    Custom layers stand out; pipelines, branches and loops open up. The page is self-contained.

    Args:
        model: an `MLModel`, or what `MLModel` takes.
        input_shape_dict: shapes of inputs, batch included, of images (height, width), where
            they differ from the described ones.
        path: where to write the page; by default a temporary file.
        open_browser: whether to open it; by default unless a notebook shows it in its cell.
        title: of the page; by default the file's name, or the kind of the model.
        against: the model before compression, likewise: adds how far each weight is from it.

    Returns:
        the path of the page, which a notebook shows as the graph.

    Raises:
        MissingDependencyError: igraph is missing.
        SpecError: there is no such input.
        ModelFileError: the page cannot be written.
    """
    if title is None:
        title = Path(model).name if isinstance(model, str | os.PathLike) else "Core ML model"
    original = None
    if against is not None:
        whole = against if isinstance(against, MLModel) else MLModel(against)
        original = whole.spec, whole.program_weights
    loaded = model if isinstance(model, MLModel) else MLModel(model)
    return draw(
        loaded.get_spec(),
        loaded._classes.layers,
        input_shape_dict or {},
        path,
        title,
        open_browser=open_browser,
        weight_facts=compressed_weights(loaded.spec, loaded.program_weights, original),
        weights=loaded.program_weights,
    )
