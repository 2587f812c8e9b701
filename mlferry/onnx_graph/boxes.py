"""Suppression of overlapping boxes.

ONNX's node does not fill empty places, does not keep the best box if no score reaches the
threshold, and compares scores strictly. So the node only says which boxes survive; they are ordered
by their best score afterwards.
"""

from __future__ import annotations

import numpy as np

from mlferry.onnx_graph.emitter import FARTHEST, INT64, Emitter

_OUT = -3e38  # the score of an excluded box; the node's threshold is just above it
_LOWEST = float(np.finfo(np.float32).min)
NO_SCORE = 0.98 * _OUT  # a threshold that every score reaches


def suppressed(
    emitter: Emitter,
    boxes: str,
    scores: str,
    *,
    iou: str,
    least: str,
    count: str,
    most: int | None,
    per_class: bool,
) -> tuple[str, str, str, str]:
    """The boxes that remain, their scores and indices, and their number; the last two are int64.

    Args:
        boxes: [batch, N, 4], each as its centre and its size.
        scores: [batch, N, classes].
        iou: how much boxes may overlap; a vector of one element.
        least: the score that a box needs.
        count: the most boxes that remain; a vector of one int64.
        most: the same number, if it is known.
        per_class: whether boxes of different classes may overlap.
    """
    best = emitter.node("ReduceMax", scores, emitter.integers([2]), keepdims=0)  # [B, N]
    emitter.shapes[best] = emitter.shape(scores)[:2]
    enough = emitter.node("GreaterOrEqual", best, least)
    candidates = _by_class(emitter, scores, best, enough, apart=per_class)
    remaining = _or_best(emitter, best, _survivors(emitter, boxes, candidates, best, iou))
    return _filled(emitter, boxes, scores, best, remaining, count, most)


def _counted(emitter: Emitter, limit: str) -> str:
    """0, 1, 2 and so on; a vector of one element says how many."""
    ends = (
        emitter.constant(np.int64(0)),
        emitter.squeeze(limit, [0]),
        emitter.constant(np.int64(1)),
    )
    y = emitter.node("Range", *ends)
    emitter.shapes[y] = (None,)
    return y


def _by_class(emitter: Emitter, scores: str, best: str, enough: str, *, apart: bool) -> str:
    """The scores [B, C, N] that count: of one class, or that of each box's own class."""
    if not apart:
        return emitter.expand(emitter.node("Where", enough, best, emitter.number(_OUT)), [1])
    classes = emitter.node("ArgMax", scores, axis=2, keepdims=1)
    own = emitter.node(
        "Equal", classes, _counted(emitter, emitter.vector([emitter.extent(scores, 2)]))
    )
    counts = emitter.node("And", own, emitter.expand(enough, [2]))
    masked = emitter.node("Where", counts, scores, emitter.number(_OUT))
    emitter.shapes[masked] = emitter.shape(scores)
    return emitter.transpose(masked, [0, 2, 1])


def _survivors(emitter: Emitter, boxes: str, candidates: str, best: str, iou: str) -> str:
    """1 where a box [B, N] is not suppressed, 0 elsewhere."""
    chosen = emitter.node(
        "NonMaxSuppression",
        boxes,
        candidates,
        emitter.integers([FARTHEST >> 1]),
        iou,
        emitter.constant(np.array([0.99 * _OUT], np.float32)),
        center_point_box=1,
    )
    emitter.shapes[chosen] = (None, 3)
    places = emitter.joined([emitter.sliced(chosen, 1, 0, 1), emitter.sliced(chosen, 1, 2, 3)], 1)
    nothing = emitter.node(
        "ConstantOfShape", emitter.shape_vector(best), value=np.zeros(1, np.int64)
    )
    ones = emitter.node("Expand", emitter.integers([1]), emitter.node("Shape", places, end=1))
    return emitter.node("ScatterND", nothing, places, ones)


def _or_best(emitter: Emitter, best: str, survivors: str) -> str:
    """Whether a box remains; the best one does if no other is left."""
    none = emitter.node(
        "Equal", emitter.node("ReduceMax", survivors, emitter.integers([1])), emitter.integers([0])
    )
    first = emitter.node("ArgMax", best, axis=1, keepdims=1)
    places = _counted(emitter, emitter.vector([emitter.extent(best, 1)]))
    alone = emitter.node("And", none, emitter.node("Equal", places, first))
    remaining = emitter.node("Or", emitter.flag(survivors), alone)
    emitter.shapes[remaining] = emitter.shape(best)
    return remaining


def _filled(
    emitter: Emitter, boxes: str, scores: str, best: str, stays: str, count: str, most: int | None
) -> tuple[str, str, str, str]:
    """What remains, sorted by score; then zeros, and -1 for indices."""
    batch, one, zero = emitter.shape(best)[0], emitter.integers([1]), emitter.integers([0])
    ranked = emitter.node("Where", stays, best, emitter.number(_LOWEST))
    available = emitter.node("Min", count, emitter.vector([emitter.extent(best, 1)]))
    _, indices = emitter.nodes("TopK", [ranked, available], 2, axis=1)
    missing = emitter.node("Sub", count, available)
    padding = emitter.node("Concat", zero, zero, zero, missing, axis=0)
    indices = emitter.node("Pad", indices, padding, emitter.constant(np.int64(0)))
    total = emitter.node(
        "Min", emitter.node("ReduceSum", emitter.node("Cast", stays, to=INT64), one), count
    )
    real = emitter.node("Less", _counted(emitter, count), total)
    emitter.shapes[indices] = emitter.shapes[real] = (batch, most)
    results = []
    for table in (boxes, scores):
        rows = emitter.node("GatherND", table, emitter.expand(indices, [2]), batch_dims=1)
        emitter.shapes[rows] = (batch, most, emitter.shape(table)[2])
        results.append(emitter.node("Where", emitter.expand(real, [2]), rows, emitter.number(0)))
    padded_indices = emitter.node("Where", real, indices, emitter.constant(np.int64(-1)))
    number = emitter.reshape(total, [-1 if batch is None else batch])
    return results[0], results[1], padded_indices, number
