"""Boxes: suppression of those that overlap."""

from __future__ import annotations

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program, refuse
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value

_COLUMNS = 7  # the opset from which boxes are columns, and the number of boxes is no output


@as_program(
    "NonMaximumSuppression",
    limits="thresholds or a number of boxes that are computed; together with ops of iOS 17",
)
def non_maximum_suppression(
    builder: ProgramBuilder, params: Params, boxes: Value, scores: Value, *given: Value
) -> tuple[Value, ...]:
    """Boxes, scores and indices of the boxes that stay, padded to `maxBoxes`, and their number."""
    defaults = (params.iouThreshold, params.scoreThreshold, params.maxBoxes)
    known = list(defaults)
    for place, value in enumerate(given):
        if not value.is_constant:
            raise refuse("its thresholds, or its number of boxes, are computed")
        known[place] = value.constant.reshape(-1)[0]
    if builder.opset >= _COLUMNS:
        raise refuse("the suppression of iOS 17 does not tell how many boxes stay")
    return builder.ops(
        "non_maximum_suppression",
        boxes=builder.as_float(boxes),
        scores=builder.as_float(scores),
        iou_threshold=float(known[0]),
        score_threshold=float(known[1]),
        max_boxes=int(known[2]),
        per_class_suppression=params.perClassSuppression,
    )
