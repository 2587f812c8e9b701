"""The shape of every blob of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlferry.models import html_page
from mlferry.models.model import MLModel
from mlferry.numerics.shapes import show
from mlferry.text import paragraph


class BlobShapes(dict[str, tuple[int, ...]]):
    """Shapes by blob, in the order in which blobs are made; prints as a table."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], makers: Mapping[str, str]) -> None:
        super().__init__(shapes)
        self._makers = makers

    def __repr__(self) -> str:
        width = max((len(name) for name in self), default=0)
        rows: Sequence[str] = [
            f"{name:{width}}  {show(shape)}  {self._makers.get(name, 'input')}"
            for name, shape in self.items()
        ]
        return paragraph(rows)

    def _repr_html_(self) -> str:
        rows = [
            (name, show(shape), self._makers.get(name, "input")) for name, shape in self.items()
        ]
        return html_page.fragment(html_page.table(rows, ["Blob", "Shape", "Made by"]))


def shapes(model: MLModel, inputs: Mapping[str, Any]) -> BlobShapes:
    """The shape that every blob of a network, or value of a program, has for one sample.

    Args:
        model: a neural network, an ML Program, or a pipeline, of which every model is looked into.
        inputs: as for `MLModel.predict`.

    Raises:
        UnsupportedModelError: the model is neither.
        PredictionError: the inputs do not fit.
    """
    makers = {blob: f"{kind} {name!r}" for blob, (name, kind) in model.makers().items()}
    names = [feature.name for feature in model.spec.description.input]
    every = model.blobs(inputs, [*names, *(name for name in makers if name not in names)])
    return BlobShapes({name: np.shape(value) for name, value in every.items()}, makers)
