"""Boxes: suppression of those that overlap."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.runtime.kernels.registry import Array, integer, kernel, number
from mlferry.spec.params import Params


class Boxes(NamedTuple):
    """Boxes [n], by their edges.

    Attributes:
        left: the lower edges along x; likewise the others.
        top: see `left`.
        right: see `left`.
        bottom: see `left`.
        area: width times height.
    """

    left: Array
    top: Array
    right: Array
    bottom: Array
    area: Array

    @classmethod
    def of(cls, boxes: Array) -> Boxes:
        """From x and y of the centre, width and height, [n, 4]."""
        x, y, width, height = np.ascontiguousarray(boxes.T)
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2, width * height)

    def overlap(self, index: int) -> Array:
        """Intersection over union of one box with all."""
        width = np.minimum(self.right, self.right[index])
        width -= np.maximum(self.left, self.left[index])
        height = np.minimum(self.bottom, self.bottom[index])
        height -= np.maximum(self.top, self.top[index])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        union = self.area + self.area[index] - shared
        return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


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
    order = np.argsort(-best, kind="stable")
    waiting = best[order] >= score_threshold
    sorted_boxes, sorted_classes = Boxes.of(boxes[order]), classes[order]
    kept: list[int] = []
    while len(kept) < count and waiting.any():
        first = int(waiting.argmax())
        kept.append(int(order[first]))
        apart = sorted_boxes.overlap(first) <= iou_threshold
        if per_class:
            apart |= sorted_classes != sorted_classes[first]
        waiting &= apart
        waiting[first] = False
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
