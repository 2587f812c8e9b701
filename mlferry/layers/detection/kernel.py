"""Boxes: suppression of those that overlap."""

from __future__ import annotations

import numpy as np

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, integer, kernel, number
from mlferry.layers.params import Params
from mlferry.numerics.boxes import remaining_boxes


@kernel("NonMaximumSuppression")
def non_maximum_suppression(
    params: Params,
    boxes: Array,
    scores: Array,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    max_boxes: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Boxes, scores and indices of the boxes that stay, padded to `maxBoxes`, and their number.

    Missing boxes and scores are 0, missing indices -1. Where no score reaches the threshold,
    the best box stays.
    """
    iou = params.iouThreshold if iou_threshold is None else number(iou_threshold, "IoU threshold")
    least = (
        params.scoreThreshold
        if score_threshold is None
        else number(score_threshold, "score threshold")
    )
    count = params.maxBoxes if max_boxes is None else integer(max_boxes, "number of boxes")
    if count < 1:
        raise PredictionError(f"at most {count} boxes are asked for; at least 1 is needed")
    per_class = params.perClassSuppression
    kept, kept_scores, indices, numbers = remaining_boxes(
        boxes, scores, iou, least, per_class=per_class, count=count
    )
    return kept, kept_scores, indices.astype(np.float32), numbers.astype(np.float32)
