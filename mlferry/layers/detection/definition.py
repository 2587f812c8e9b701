"""Boxes: suppression of those that overlap."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import layer_kind
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, show


@layer_kind("NonMaximumSuppression", inputs=(2, 5), outputs=4)
def non_maximum_suppression(
    params: Params, boxes: Shape, scores: Shape, *dynamic: Shape
) -> list[Shape]:
    """Boxes [B, N, 4] and scores [B, N, C]; the fifth input is the number of boxes to keep."""
    if len(boxes) != 3 or len(scores) != 3 or boxes[2] not in (4, None):
        raise SpecError(f"boxes (B, N, 4) and scores (B, N, C): {show(boxes)}, {show(scores)}")
    for mine, other in zip(boxes[:2], scores[:2], strict=True):
        if None not in (mine, other) and mine != other:
            raise SpecError(f"boxes {show(boxes)} and scores {show(scores)} do not belong together")
    if len(dynamic) > 3:
        raise SpecError(f"{len(dynamic) + 2} inputs; it takes up to 5")
    count = None if len(dynamic) == 3 else params.maxBoxes
    return [(boxes[0], count, 4), (boxes[0], count, scores[2]), (boxes[0], count), (boxes[0],)]
