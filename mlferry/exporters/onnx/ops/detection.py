"""Boxes: suppression of those that overlap."""

from __future__ import annotations

import numpy as np

from mlferry.exporters.onnx.emitter import FARTHEST, FLOAT, INT64, Emitter
from mlferry.exporters.onnx.ops.registry import op
from mlferry.spec.params import Params

_OUT = -3e38  # the score of a box that is out; below it nothing is


@op("NonMaximumSuppression")
def non_maximum_suppression(
    e: Emitter, p: Params, boxes: str, scores: str, *given: str
) -> tuple[str, str, str, str]:
    """Boxes, scores and indices of those that stay, filled up to `maxBoxes`, and their number.

    ONNX's node knows neither the filling nor that the best box stays where no score reaches the
    threshold, and compares scores strictly. It is asked which boxes survive; they are ordered by
    their best score afterwards.
    """
    iou = e.reshape(given[0], [1]) if given else e.constant(np.array([p.iouThreshold], np.float32))
    least = e.reshape(given[1], [1]) if len(given) > 1 else e.number(p.scoreThreshold)
    count = e.reshape(e.whole(given[2]), [1]) if len(given) > 2 else e.integers([p.maxBoxes])
    zero, one, out = e.integers([0]), e.integers([1]), e.number(_OUT)
    best = e.node("ReduceMax", scores, e.integers([2]), keepdims=0)  # [B, N]
    e.shapes[best] = e.shape(scores)[:2]
    enough = e.node("GreaterOrEqual", best, least)
    if p.perClassSuppression:
        classes = e.node("ArgMax", scores, axis=2, keepdims=1)
        places = e.node("Range", e.constant(np.int64(0)), *_scalars(e, scores))
        own = e.node("Equal", classes, places)  # [B, N, C]
        e.shapes[own] = e.shape(scores)
        counted = e.node("And", own, e.unsqueeze(enough, [2]))
        masked = e.transpose(e.node("Where", counted, scores, out), [0, 2, 1])
    else:
        masked = e.unsqueeze(e.node("Where", enough, best, out), [1])
    chosen = e.node(
        "NonMaxSuppression", boxes, masked, e.integers([FARTHEST >> 1]), iou,
        e.constant(np.array([0.99 * _OUT], np.float32)), center_point_box=1,
    )  # fmt: skip
    e.shapes[chosen] = (None, 3)
    places = e.joined([e.sliced(chosen, 1, 0, 1), e.sliced(chosen, 1, 2, 3)], 1)
    nothing = e.node("ConstantOfShape", e.shape_vector(best), value=np.zeros(1, np.int64))
    found = e.node("Expand", one, e.node("Shape", places, end=1))
    kept = e.node("ScatterND", nothing, places, found)  # [B, N]
    e.shapes[kept] = e.shape(best)
    # where none is left, the best one stays
    first = e.node("ArgMax", best, axis=1, keepdims=1)
    order = e.node("Range", e.constant(np.int64(0)), *_scalars(e, best))
    none = e.node("Equal", e.node("ReduceMax", kept, one), zero)
    kept = e.node("Or", e.flag(kept), e.node("And", none, e.node("Equal", order, first)))
    e.shapes[kept] = e.shape(best)
    # sorted by score; what was not kept comes behind and is filled with zeros
    ranked = e.node("Where", kept, best, e.number(float(np.finfo(np.float32).min)))
    available = e.node("Min", count, e.vector([e.extent(best, 1)]))
    _, indices = e.nodes("TopK", [ranked, available], 2, axis=1)
    total = e.node("Min", e.node("ReduceSum", e.node("Cast", kept, to=INT64), one), count)  # [B, 1]
    missing = e.node("Sub", count, available)
    padding = e.node("Concat", zero, zero, zero, missing, axis=0)
    indices = e.node("Pad", indices, padding, e.constant(np.int64(0)))
    batch, boxes_shape = e.shape(best)[0], e.shape(boxes)
    most = None if len(given) > 2 else p.maxBoxes
    e.shapes[indices] = (batch, most)
    step = e.node("Range", e.constant(np.int64(0)), e.squeeze(count, [0]), e.constant(np.int64(1)))
    real = e.node("Less", step, total)
    e.shapes[real] = (batch, most)
    wide = e.unsqueeze(real, [2])
    results = []
    for table, width in ((boxes, 4), (scores, e.shape(scores)[2])):
        rows = e.node("GatherND", table, e.unsqueeze(indices, [2]), batch_dims=1)
        e.shapes[rows] = (batch, most, width)
        results.append(e.node("Where", wide, rows, e.number(0)))
    shown = e.node("Where", real, e.node("Cast", indices, to=FLOAT), e.number(-1))
    number = e.reshape(e.from_whole(total), [boxes_shape[0] if boxes_shape[0] is not None else -1])
    return results[0], results[1], shown, number


def _scalars(e: Emitter, x: str) -> tuple[str, str]:
    """The size of the last axis and a step of one, as limits of a range."""
    size = e.squeeze(e.vector([e.extent(x, -1)]), [0])
    return size, e.constant(np.int64(1))
