"""Boxes: suppression of those that overlap."""

from __future__ import annotations

import numpy as np

from mlferry.layers.exports import op
from mlferry.layers.params import Params
from mlferry.onnx_graph.emitter import FARTHEST, FLOAT, INT64, Emitter

_OUT = -3e38  # the score of a box that is out; the node's threshold lies right above it
_LOWEST = float(np.finfo(np.float32).min)


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
    best = e.node("ReduceMax", scores, e.integers([2]), keepdims=0)  # [B, N]
    e.shapes[best] = e.shape(scores)[:2]
    enough = e.node("GreaterOrEqual", best, least)
    candidates = _by_class(e, scores, best, enough, apart=p.perClassSuppression)
    kept = _or_best(e, best, _survivors(e, boxes, candidates, best, iou))
    return _filled(e, boxes, scores, best, kept, count, None if len(given) > 2 else p.maxBoxes)


def _counted(e: Emitter, limit: str) -> str:
    """0, 1, 2 and so on, as many as a vector of one tells."""
    ends = (e.constant(np.int64(0)), e.squeeze(limit, [0]), e.constant(np.int64(1)))
    y = e.node("Range", *ends)
    e.shapes[y] = (None,)
    return y


def _by_class(e: Emitter, scores: str, best: str, enough: str, *, apart: bool) -> str:
    """The scores [B, C, N] that count: of one class, or that of each box's own class."""
    if not apart:
        return e.unsqueeze(e.node("Where", enough, best, e.number(_OUT)), [1])
    classes = e.node("ArgMax", scores, axis=2, keepdims=1)
    own = e.node("Equal", classes, _counted(e, e.vector([e.extent(scores, 2)])))
    counts = e.node("And", own, e.unsqueeze(enough, [2]))
    masked = e.node("Where", counts, scores, e.number(_OUT))
    e.shapes[masked] = e.shape(scores)
    return e.transpose(masked, [0, 2, 1])


def _survivors(e: Emitter, boxes: str, candidates: str, best: str, iou: str) -> str:
    """1 where a box [B, N] is not suppressed, 0 elsewhere."""
    chosen = e.node(
        "NonMaxSuppression", boxes, candidates, e.integers([FARTHEST >> 1]), iou,
        e.constant(np.array([0.99 * _OUT], np.float32)), center_point_box=1,
    )  # fmt: skip
    e.shapes[chosen] = (None, 3)
    places = e.joined([e.sliced(chosen, 1, 0, 1), e.sliced(chosen, 1, 2, 3)], 1)
    nothing = e.node("ConstantOfShape", e.shape_vector(best), value=np.zeros(1, np.int64))
    ones = e.node("Expand", e.integers([1]), e.node("Shape", places, end=1))
    return e.node("ScatterND", nothing, places, ones)


def _or_best(e: Emitter, best: str, survivors: str) -> str:
    """Whether a box stays: the best one does where no other is left."""
    none = e.node("Equal", e.node("ReduceMax", survivors, e.integers([1])), e.integers([0]))
    first = e.node("ArgMax", best, axis=1, keepdims=1)
    places = _counted(e, e.vector([e.extent(best, 1)]))
    alone = e.node("And", none, e.node("Equal", places, first))
    kept = e.node("Or", e.flag(survivors), alone)
    e.shapes[kept] = e.shape(best)
    return kept


def _filled(
    e: Emitter, boxes: str, scores: str, best: str, kept: str, count: str, most: int | None
) -> tuple[str, str, str, str]:
    """What stays, sorted by score; then zeros, and -1 for indices."""
    batch, one, zero = e.shape(best)[0], e.integers([1]), e.integers([0])
    ranked = e.node("Where", kept, best, e.number(_LOWEST))
    available = e.node("Min", count, e.vector([e.extent(best, 1)]))
    _, indices = e.nodes("TopK", [ranked, available], 2, axis=1)
    missing = e.node("Sub", count, available)
    padding = e.node("Concat", zero, zero, zero, missing, axis=0)
    indices = e.node("Pad", indices, padding, e.constant(np.int64(0)))
    total = e.node("Min", e.node("ReduceSum", e.node("Cast", kept, to=INT64), one), count)
    real = e.node("Less", _counted(e, count), total)
    e.shapes[indices] = e.shapes[real] = (batch, most)
    results = []
    for table in (boxes, scores):
        rows = e.node("GatherND", table, e.unsqueeze(indices, [2]), batch_dims=1)
        e.shapes[rows] = (batch, most, e.shape(table)[2])
        results.append(e.node("Where", e.unsqueeze(real, [2]), rows, e.number(0)))
    shown = e.node("Where", real, e.node("Cast", indices, to=FLOAT), e.number(-1))
    number = e.reshape(e.from_whole(total), [-1 if batch is None else batch])
    return results[0], results[1], shown, number
