"""Boxes: suppression of those that overlap."""

from __future__ import annotations

import numpy as np

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, integer, kernel, number
from mlferry.layers.params import Params
from mlferry.numerics.boxes import suppressed


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
    batch = boxes.shape[0]
    found_boxes = np.zeros((batch, count, 4), np.float32)
    found_scores = np.zeros((batch, count, scores.shape[-1]), np.float32)
    found_indices = np.full((batch, count), -1, np.float32)
    numbers = np.zeros(batch, np.float32)
    for sample in range(batch):
        remaining = suppressed(
            boxes[sample],
            scores[sample],
            iou,
            least,
            per_class=params.perClassSuppression,
            count=count,
        ) or [int(scores[sample].max(axis=-1).argmax())]
        size = len(remaining)
        found_boxes[sample, :size] = boxes[sample, remaining]
        found_scores[sample, :size] = scores[sample, remaining]
        found_indices[sample, :size] = remaining
        numbers[sample] = size
    return found_boxes, found_scores, found_indices, numbers
