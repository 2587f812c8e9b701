"""Suppression of overlapping boxes, for the layer and for the model that follows a detector."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.numerics.shapes import Array


class Boxes(NamedTuple):
    """Boxes [n], by their edges.

    Attributes:
        left: the lower edges along x.
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
        """Boxes from the x and y of their centre, width and height, [n, 4]."""
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
        ratio: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        return ratio


def suppressed(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    score_threshold: float,
    *,
    per_class: bool,
    count: int | None = None,
) -> list[int]:
    """The indices of the boxes that remain, best first.

    A box counts with its best score; if classes are kept apart, it belongs to the class of that
    score.

    Args:
        boxes: x and y of the centre, width and height, [n, 4].
        scores: of each class, [n, classes].
        iou_threshold: intersection over union above which the worse box is removed.
        score_threshold: the lowest score that a box needs.
        per_class: whether a box only suppresses boxes of its own class.
        count: the most boxes that remain; None for all.
    """
    if not len(boxes):
        return []
    best = scores.max(axis=-1)
    classes: NDArray[np.int64] = scores.argmax(axis=-1)
    order = np.argsort(-best, kind="stable")
    waiting = best[order] >= score_threshold
    sorted_boxes, sorted_classes = Boxes.of(boxes[order]), classes[order]
    remaining: list[int] = []
    while (count is None or len(remaining) < count) and waiting.any():
        first = int(np.argmax(waiting))
        remaining.append(int(order[first]))
        apart = sorted_boxes.overlap(first) <= iou_threshold
        if per_class:
            apart |= sorted_classes != sorted_classes[first]
        waiting &= apart
        waiting[first] = False
    return remaining


def remaining_boxes(
    boxes: Array,
    scores: Array,
    iou_threshold: float,
    score_threshold: float,
    *,
    per_class: bool,
    count: int,
) -> tuple[Array, Array, Array, Array]:
    """The boxes of each sample that remain, their scores, their indices, and how many there are.

    One always does, whatever its score. In empty places boxes and scores are 0, and indices are -1.

    Args:
        boxes: [samples, n, 4]; see `suppressed`, as for the others.
        scores: [samples, n, classes].
        count: the most boxes that remain of a sample.
    """
    samples, _, classes = scores.shape
    kept_boxes = np.zeros((samples, count, 4), np.float32)
    kept_scores = np.zeros((samples, count, classes), np.float32)
    indices = np.full((samples, count), -1, np.int32)
    numbers = np.zeros(samples, np.int32)
    for sample in range(samples):
        one, its_scores = boxes[sample], scores[sample]
        limits = (iou_threshold, score_threshold)
        chosen = suppressed(one, its_scores, *limits, per_class=per_class, count=count)
        chosen = chosen or [int(its_scores.max(axis=-1).argmax())]
        size = numbers[sample] = len(chosen)
        kept_boxes[sample, :size] = one[chosen]
        kept_scores[sample, :size] = its_scores[chosen]
        indices[sample, :size] = chosen
    return kept_boxes, kept_scores, indices, numbers
