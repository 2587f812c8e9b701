"""A row of the tables: one layer, what goes in, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry.runtime.session import Session
from mlferry.spec import fields
from mlferry.spec.proto import neural_network_pb2 as nn

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    kind: str
    params: Mapping[str, Any]
    inputs: Sequence[Array]
    expected: Sequence[Array]
    mapping: str
    tolerance: float

    def __str__(self) -> str:
        return f"{self.kind}-{self.mapping}"


def exact(
    kind: str,
    params: Mapping[str, Any],
    inputs: Sequence[ArrayLike],
    *expected: ArrayLike,
    tolerance: float = 1e-5,
    mapping: str = "exact",
) -> Case:
    """A row in exact mapping."""
    return Case(
        kind,
        params,
        [np.asarray(x, np.float32) for x in inputs],
        [np.asarray(y) for y in expected],
        mapping,
        tolerance,
    )


def five(
    kind: str,
    params: Mapping[str, Any],
    inputs: Sequence[ArrayLike],
    *expected: ArrayLike,
    tolerance: float = 1e-5,
) -> list[Case]:
    """Two rows of a layer whose blobs have five axes in any mapping."""
    return [
        exact(kind, params, inputs, *expected, tolerance=tolerance, mapping=mapping)
        for mapping in ("exact", "rank5")
    ]


def classic(
    kind: str,
    params: Mapping[str, Any],
    inputs: Sequence[ArrayLike],
    *expected: ArrayLike,
    tolerance: float = 1e-5,
) -> list[Case]:
    """A row in exact mapping and one in rank 5, which has an axis more in front."""
    four = exact(kind, params, inputs, *expected, tolerance=tolerance)
    return [
        four,
        exact(
            kind,
            params,
            [x.reshape((1,) * (5 - x.ndim) + x.shape) for x in four.inputs],
            *(y.reshape((1,) * (5 - y.ndim) + y.shape) for y in four.expected),
            tolerance=tolerance,
            mapping="rank5",
        ),
    ]


def network(
    kind: str, params: Mapping[str, Any], inputs: int, outputs: int, mapping: str = "exact"
) -> nn.NeuralNetwork:
    """A network of one layer with inputs x0, x1, ... and outputs y0, y1, ..."""
    spec = nn.NeuralNetwork()
    if mapping == "exact":
        spec.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
        spec.imageInputShapeMapping = nn.RANK4_IMAGE_MAPPING
    layer = spec.layers.add(
        name="it",
        input=[f"x{index}" for index in range(inputs)],
        output=[f"y{index}" for index in range(outputs)],
    )
    getattr(layer, kind).SetInParent()
    fields.fill(getattr(layer, kind), params)
    return spec


def run(result: nn.NeuralNetwork, inputs: Sequence[Array]) -> list[Array]:
    """All outputs of a network of one layer."""
    blobs = {f"x{index}": np.asarray(x, np.float32) for index, x in enumerate(inputs)}
    names = list(result.layers[0].output)
    actual = Session(result).run(blobs, names)
    return [actual[name] for name in names]
