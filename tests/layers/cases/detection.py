"""Suppression of overlapping boxes, worked out by hand."""

from __future__ import annotations

import numpy as np

from tests.layers.case import Case, exact

# Centre x, centre y, width, height. Boxes 0 and 1 overlap by 1/3, 2 is alone, 3 is box 0.
BOXES = [[1, 1, 2, 2], [2, 1, 2, 2], [9, 9, 2, 2], [1, 1, 2, 2]]
SCORES = [[0.9], [0.8], [0.3], [0.5]]
CLASSES = [[0.9, 0.1], [0.1, 0.8], [0.3, 0.2], [0.5, 0.6]]


def result(scores: list[list[float]], kept: list[int], count: int) -> list[np.ndarray]:
    missing = count - len(kept)
    classes = len(scores[0])
    return [
        np.array([[*(BOXES[k] for k in kept), *[[0] * 4] * missing]]),
        np.array([[*(scores[k] for k in kept), *[[0] * classes] * missing]]),
        np.array([[*kept, *[-1] * missing]]),
        np.array([len(kept)]),
    ]


def nms(
    scores: list[list[float]],
    kept: list[int],
    count: int,
    *dynamic: float,
    iou: float = 0,
    score: float = 0,
    per_class: bool = False,
) -> Case:
    params = {
        "iouThreshold": iou,
        "scoreThreshold": score,
        "maxBoxes": 7 if len(dynamic) == 3 else count,
        "perClassSuppression": per_class,
    }
    inputs = [[BOXES], [scores], *([number] for number in dynamic)]
    return exact("NonMaximumSuppression", params, inputs, *result(scores, kept, count))


BATCH = exact(
    "NonMaximumSuppression",
    {"iouThreshold": 0.5, "maxBoxes": 2},
    [[BOXES, BOXES], [SCORES, [[0.1], [0.2], [0.3], [0.4]]]],
    [[BOXES[0], BOXES[1]], [BOXES[3], BOXES[2]]],
    [[[0.9], [0.8]], [[0.4], [0.3]]],
    [[0, 1], [3, 2]],
    [2, 2],
)

CASES: list[Case] = [
    nms(SCORES, [0, 1, 2], 5, iou=0.5),
    nms(SCORES, [0, 2], 5, iou=0.3),
    nms(SCORES, [0, 1], 2, iou=0.5),
    nms(SCORES, [0, 1, 3, 2], 4, iou=1.0),
    nms(SCORES, [0, 1], 3, iou=0.5, score=0.4),
    nms(SCORES, [0], 3, iou=0.5, score=0.95),
    nms(CLASSES, [0, 2], 4, iou=0.2),
    nms(CLASSES, [0, 1, 2], 4, iou=0.2, per_class=True),
    nms(CLASSES, [0, 1, 3, 2], 4, iou=0.4, per_class=True),
    nms(SCORES, [0, 2], 5, 0.3, iou=0.9),
    nms(SCORES, [0], 5, 0.3, 0.6),
    nms(SCORES, [0, 1], 2, 0.5, 0.0, 2),
    BATCH,
]
