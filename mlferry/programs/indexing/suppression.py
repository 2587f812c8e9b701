"""Suppression of boxes as CoreML5 has it, by the operation of CoreML7.

The newer one takes boxes as columns and no threshold for scores, and does not tell how many boxes
stay. As boxes stay in the order of their scores, those below the threshold can go afterwards: they
suppress none above it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlferry.errors import SpecError
from mlferry.programs.graph import Value, constant, string
from mlferry.programs.types import DTYPES

Emit = Callable[..., tuple[Value, ...]]  # adds an operation, with operands by name


def suppression_by_columns(
    emit: Emit,
    boxes: Value,
    scores: Value,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
    per_class_suppression: bool,
) -> tuple[Value, Value, Value, Value]:
    """The boxes that stay, their scores, their indices, and their number.

    Args:
        emit: adds an operation.
        boxes: [n, B, 4].
        scores: [n, B, K].
        iou_threshold: the overlap above which the box of the lower score goes.
        score_threshold: the least score of a box; above 0, so that no padding reaches it.
        max_boxes: most boxes that stay of a sample, and the extent of the results.
        per_class_suppression: whether boxes only suppress those of their own class.

    Raises:
        SpecError: `score_threshold` is not above 0, or `max_boxes` is 0.
    """
    if not score_threshold > 0:
        raise SpecError(
            f"a score threshold of {score_threshold}: from CoreML7 on nothing tells how many boxes "
            "stay, but where it is above 0"
        )
    if max_boxes < 1:
        raise SpecError("max_boxes is 0")

    def as_type(x: Value, dtype: str) -> Value:
        return emit("cast", x=x, dtype=string(dtype))[0]

    swap = constant(np.array([0, 2, 1], np.int32), "int32")
    number = DTYPES[boxes.dtype].array
    columns, of_columns = (emit("transpose", x=x, perm=swap)[0] for x in (boxes, scores))
    kept_columns, scores_of_columns, indices = emit(
        "non_maximum_suppression",
        boxes=columns,
        scores=of_columns,
        iou_threshold=constant(np.asarray(iou_threshold, number), boxes.dtype),
        max_boxes=constant(np.int32(max_boxes), "int32"),
        per_class_suppression=constant(np.bool_(per_class_suppression), "bool"),
    )
    kept, kept_scores = (
        emit("transpose", x=x, perm=swap)[0] for x in (kept_columns, scores_of_columns)
    )
    last, apart = constant(np.array([-1], np.int32), "int32"), constant(np.bool_(False), "bool")
    (best,) = emit("reduce_max", x=kept_scores, axes=last, keep_dims=apart)
    least = constant(np.asarray(score_threshold, number), scores.dtype)
    (is_good,) = emit("greater_equal", x=best, y=least)
    (is_box,) = emit("greater_equal", x=indices, y=constant(np.int32(0), "int32"))
    (is_good_box,) = emit("logical_and", x=is_good, y=is_box)
    first = constant(np.arange(max_boxes)[None] == 0, "bool")  # it stays whatever its score
    (stays,) = emit("logical_or", x=is_good_box, y=first)
    whole = as_type(stays, "int32")
    (share,) = emit("expand_dims", x=as_type(stays, boxes.dtype), axes=last)
    one = constant(np.int32(1), "int32")
    (raised,) = emit("add", x=indices, y=one)
    (marked,) = emit("mul", x=raised, y=whole)
    return (
        emit("mul", x=kept, y=share)[0],
        emit("mul", x=kept_scores, y=share)[0],
        emit("sub", x=marked, y=one)[0],
        emit("reduce_sum", x=whole, axes=last, keep_dims=apart)[0],
    )
