"""The shape of every blob of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlferry.models.model import MLModel
from mlferry.numerics.shapes import show
from mlferry.spec import networks


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
        return "\n".join(rows)


def shapes(model: MLModel, inputs: Mapping[str, Any]) -> BlobShapes:
    """The shape that every blob of a network has for one sample.

    Args:
        model: a neural network.
        inputs: as for `MLModel.predict`.

    Raises:
        UnsupportedModelError: the model is no neural network.
        PredictionError: the inputs do not fit.
    """
    spec = model.get_spec()
    network = networks.network_of(spec)
    layers = network.layers if network is not None else ()
    makers = {
        blob: f"{layer.WhichOneof('layer')} {layer.name!r}"
        for layer in layers
        for blob in layer.output
    }
    names = [feature.name for feature in spec.description.input]
    every = model.blobs(inputs, [*names, *(name for name in makers if name not in names)])
    return BlobShapes({name: array.shape for name, array in every.items()}, makers)
