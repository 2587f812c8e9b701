"""Boxes: suppression of those that overlap."""

from __future__ import annotations

from typing import Any

from mlferry.errors import SpecError
from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value
from mlferry.programs.indexing.suppression import suppression_by_columns
from mlferry.refusals import refuse

_COLUMNS = 7  # the opset from which boxes are columns, and the number of boxes is no output


@as_program(
    "NonMaximumSuppression",
    limits="thresholds or a number of boxes that are computed; no score threshold above 0 "
    "together with ops of iOS 17",
)
def non_maximum_suppression(
    builder: ProgramBuilder, params: Params, boxes: Value, scores: Value, *more: Value
) -> tuple[Value, ...]:
    """Boxes, scores and indices of the boxes that stay, padded to `maxBoxes`, and their number."""
    defaults = (params.iouThreshold, params.scoreThreshold, params.maxBoxes)
    limits = list(defaults)
    for place, value in enumerate(more):
        if not value.is_constant:
            raise refuse("its thresholds, or its number of boxes, are computed")
        limits[place] = value.constant.reshape(-1)[0]
    boxes, scores = builder.as_float(boxes), builder.as_float(scores)
    options: dict[str, Any] = {
        "iou_threshold": float(limits[0]),
        "score_threshold": float(limits[1]),
        "max_boxes": int(limits[2]),
        "per_class_suppression": params.perClassSuppression,
    }
    if builder.opset < _COLUMNS:
        return builder.ops("non_maximum_suppression", boxes=boxes, scores=scores, **options)
    try:
        return suppression_by_columns(builder.ops, boxes, scores, **options)
    except SpecError as error:
        raise refuse(str(error)) from error
