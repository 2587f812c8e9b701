"""Training of a nearest-neighbours classifier, which stores more samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlferry.errors import PredictionError, SpecError
from mlferry.runtime.evaluators.predictors import row
from mlferry.spec.proto import model_pb2
from mlferry.training.options import Parameters, check_number


def remember(
    model: model_pb2.Model,
    samples: Sequence[tuple[Mapping[str, Any], str | int]],
    parameters: Parameters,
) -> None:
    """Add samples to a classifier, after those that it has.

    Args:
        model: a `kNearestNeighborsClassifier`, which is changed.
        samples: the features of each, and its label, text or an integer as the model has them.
        parameters: `numberOfNeighbors`, or nothing.

    Raises:
        SpecError: there is another parameter, or the model does not allow its value.
        PredictionError: a sample has other dimensions, or values that are not finite.
    """
    params = model.kNearestNeighborsClassifier
    index = params.nearestNeighborsIndex
    for name, value in parameters.items():
        if name != "numberOfNeighbors":
            raise SpecError(
                f"a nearest-neighbours classifier is trained with no parameter {name!r}; there is "
                "numberOfNeighbors"
            )
        check_number(name, value, params.numberOfNeighbors)
        params.numberOfNeighbors.defaultValue = int(value)
    texts = params.WhichOneof("ClassLabels") == "stringClassLabels"
    labels: Any = params.stringClassLabels if texts else params.int64ClassLabels
    for number, (data, label) in enumerate(samples):
        values = np.asarray(row(model, data), np.float32)
        if values.size != index.numberOfDimensions or not np.isfinite(values).all():
            raise PredictionError(
                f"sample {number} has {values.size} values; {index.numberOfDimensions} finite ones "
                "are needed"
            )
        index.floatSamples.add().vector.extend(values.tolist())
        labels.vector.append(label)
