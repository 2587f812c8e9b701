"""Boxes: suppression of those that overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.runtime.kernels.registry import Array, integer, kernel, number
from mlferry.spec.params import Params


def overlap(box: Array, others: Array) -> Array:
    """Intersection over union of one box (x, y, width, height: its centre first) with others."""
    low = np.maximum(box[:2] - box[2:] / 2, others[:, :2] - others[:, 2:] / 2)
    high = np.minimum(box[:2] + box[2:] / 2, others[:, :2] + others[:, 2:] / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    union = np.prod(box[2:]) + np.prod(others[:, 2:], axis=-1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def _survivors(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    score_threshold: float,
    count: int,
    per_class: bool,
) -> list[int]:
    """Indices of the boxes that stay, best first.

    A box counts by its best score and, where classes are kept apart, belongs to that class.
    """
    best = scores.max(axis=-1)
    classes: NDArray[np.int64] = scores.argmax(axis=-1)
    kept: list[int] = []
    for index in np.argsort(-best, kind="stable"):
        if len(kept) == count or best[index] < score_threshold:
            break
        rivals = [k for k in kept if not per_class or classes[k] == classes[index]]
        if not rivals or (overlap(boxes[index], boxes[rivals]) <= iou_threshold).all():
            kept.append(int(index))
    return kept or [int(best.argmax())]


@kernel("NonMaximumSuppression")
def non_maximum_suppression(
    p: Params,
    boxes: Array,
    scores: Array,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    max_boxes: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Boxes, scores and indices of those that stay, filled up to `maxBoxes`, and their number.

    Missing boxes and scores are 0, missing indices -1. Where no score reaches the threshold,
    the best box stays.
    """
    iou = p.iouThreshold if iou_threshold is None else number(iou_threshold, "IoU threshold")
    least = (
        p.scoreThreshold if score_threshold is None else number(score_threshold, "score threshold")
    )
    count = p.maxBoxes if max_boxes is None else integer(max_boxes, "number of boxes")
    if count < 1:
        raise PredictionError(f"at most {count} boxes are asked for; at least 1 is needed")
    batch = boxes.shape[0]
    found_boxes = np.zeros((batch, count, 4), np.float32)
    found_scores = np.zeros((batch, count, scores.shape[-1]), np.float32)
    found_indices = np.full((batch, count), -1, np.float32)
    numbers = np.zeros(batch, np.float32)
    for sample in range(batch):
        kept = _survivors(boxes[sample], scores[sample], iou, least, count, p.perClassSuppression)
        size = len(kept)
        found_boxes[sample, :size] = boxes[sample, kept]
        found_scores[sample, :size] = scores[sample, kept]
        found_indices[sample, :size] = kept
        numbers[sample] = size
    return found_boxes, found_scores, found_indices, numbers
