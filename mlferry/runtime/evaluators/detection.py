"""The non-maximum suppression model that follows a detector in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.numerics.boxes import suppressed
from mlferry.runtime.evaluators.registry import CustomClasses, Evaluator, checked, evaluator
from mlferry.spec.proto import model_pb2

Table = NDArray[np.float64]


@evaluator("nonMaximumSuppression")
def non_maximum_suppression(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """Keep the likeliest of the boxes that overlap.

    Boxes are [N, 4]: the centre's x and y, width, height; confidences are [N, classes]. A box
    counts with its best class where that reaches the threshold. With `perClass` a box only
    suppresses boxes of its own class.
    """
    params = model.nonMaximumSuppression

    def threshold(data: Mapping[str, Any], name: str, default: float) -> float:
        return float(data[name]) if name and name in data else default

    def run(data: Mapping[str, Any]) -> dict[str, Any]:
        confidence = _table(data[params.confidenceInputFeatureName], None, "confidences")
        boxes = _table(data[params.coordinatesInputFeatureName], 4, "coordinates")
        if len(boxes) != len(confidence):
            raise PredictionError(f"{len(boxes)} boxes with {len(confidence)} confidences")
        best = suppressed(
            boxes,
            confidence,
            threshold(data, params.iouThresholdInputFeatureName, params.iouThreshold),
            threshold(data, params.confidenceThresholdInputFeatureName, params.confidenceThreshold),
            per_class=params.pickTop.perClass,
        )
        return {
            params.confidenceOutputFeatureName: confidence[best],
            params.coordinatesOutputFeatureName: boxes[best],
        }

    return checked(model, run)


def _table(value: NDArray[Any], columns: int | None, what: str) -> Table:
    array = np.asarray(value, np.float64)
    array = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    if columns is not None and array.shape[-1] != columns:
        raise PredictionError(f"{what} have {array.shape[-1]} columns, not {columns}")
    return array
