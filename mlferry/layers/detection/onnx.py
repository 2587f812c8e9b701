"""Boxes: suppression of those that overlap."""

from __future__ import annotations

import numpy as np

from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.onnx_graph.boxes import suppressed
from mlferry.onnx_graph.emitter import FLOAT, Emitter


@op("NonMaximumSuppression")
def non_maximum_suppression(
    emitter: Emitter, params: Params, boxes: str, scores: str, *more: str
) -> tuple[str, str, str, str]:
    """Boxes, scores and indices of the boxes that stay, padded to `maxBoxes`, and their number."""
    iou = (
        emitter.reshape(more[0], [1])
        if more
        else emitter.constant(np.array([params.iouThreshold], np.float32))
    )
    least = (
        emitter.reshape(more[1], [1]) if len(more) > 1 else emitter.number(params.scoreThreshold)
    )
    count = (
        emitter.reshape(emitter.whole(more[2]), [1])
        if len(more) > 2
        else emitter.integers([params.maxBoxes])
    )
    result, best, remaining, numbers = suppressed(
        emitter,
        boxes,
        scores,
        iou=iou,
        least=least,
        count=count,
        most=None if len(more) > 2 else params.maxBoxes,
        per_class=params.perClassSuppression,
    )
    remaining = emitter.node("Cast", remaining, to=FLOAT)
    return result, best, remaining, emitter.from_whole(numbers)
