"""Suppressing boxes that overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.detection import centred
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of, ints, known, scalar
from mlferry.converters.tensorflow.ops.registry import op, source
from mlferry.converters.values import SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError

_LEAST = float(np.finfo(np.float32).min)


def _number(node: Node, place: int, x: Operand | None, default: float) -> float:
    if x is None:
        return default
    array = x.array if isinstance(x, Constant) else array_of(node, place, x)
    return float(array.ravel()[0])


def _suppressed(
    context: Lowering, node: Node, operands: Sequence[Operand]
) -> tuple[Blob, Blob, Blob]:
    """Indices of the boxes that stay, their scores, and whether each row has one."""
    boxes, scores, most, *rest = operands
    count = known(source(context, boxes))[0]
    keep = min(ints(array_of(node, 2, most))[0], count)
    if keep < 1:
        raise ConversionError("max_output_size of 0: a result without elements")
    iou = _number(node, 3, rest[0] if rest else None, 0.5)
    least = _number(node, 4, rest[1] if len(rest) > 1 else None, -np.inf)
    blob = context.expand(centred(context, source(context, boxes)), 0)
    values = context.expand(source(context, scores), 0, 2)
    _, best, places, _ = context.outputs(
        4,
        "NonMaximumSuppression",
        blob,
        values,
        layout=SOURCE,
        maxBoxes=keep,
        iouThreshold=iou,
        scoreThreshold=max(least, _LEAST),
        perClassSuppression=False,
    )
    flat = context.layer("squeeze", places, layout=SOURCE, axes=(0,))
    best = context.layer("squeeze", best, layout=SOURCE, axes=(0, 2))
    there = context.emit("greaterEqual", flat, alpha=0.0)
    if np.isfinite(least):
        above = context.emit("greaterThan", best, alpha=least)
        there = context.emit("logicalAnd", there, above)
    return flat, best, there


def _present(context: Lowering, x: Blob, there: Blob) -> Blob:
    places = context.layer("whereNonZero", there, layout=SOURCE)
    return context.layer("gatherND", x, places, layout=SOURCE)


@op("NonMaxSuppression", raw=True)
def non_max_suppression(context: Lowering, node: Node, *operands: Operand) -> Blob:
    threshold = Constant("", np.array(node.attrs.get("iou_threshold", 0.5), np.float32))
    flat, _, there = _suppressed(context, node, (*operands, threshold))
    return _present(context, flat, there)


@op("NonMaxSuppressionV2", "NonMaxSuppressionV3", raw=True)
def non_max_suppression_v3(context: Lowering, node: Node, *operands: Operand) -> Blob:
    """Boxes come in the order of their scores."""
    flat, _, there = _suppressed(context, node, operands)
    return _present(context, flat, there)


def _answers(
    context: Lowering,
    node: Node,
    result: tuple[Blob, Blob, Blob],
    most: Operand,
    values: list[Blob],
) -> list[Blob]:
    """Values of the boxes that stay, and their number; padding is 0."""
    flat, _, there = result
    count = context.layer("reduceSum", there, layout=SOURCE, reduceAll=True, keepDims=False)
    if not node.attrs.get("pad_to_max_output_size", False):
        return [*(_present(context, x, there) for x in values), scalar(count)]
    missing = ints(array_of(node, 2, most))[0] - known(flat)[0]
    zero = context.constant([0.0])
    padded = []
    for x in values:
        masked = context.where(there, x, zero)
        if missing:
            masked = context.layer("constantPad", masked, layout=SOURCE, padAmounts=(0, missing))
        padded.append(masked)
    return [*padded, scalar(count)]


@op("NonMaxSuppressionV4", raw=True)
def non_max_suppression_v4(context: Lowering, node: Node, *operands: Operand) -> list[Blob]:
    result = _suppressed(context, node, operands)
    return _answers(context, node, result, operands[2], [result[0]])


@op("NonMaxSuppressionV5", raw=True)
def non_max_suppression_v5(context: Lowering, node: Node, *operands: Operand) -> list[Blob]:
    """Refuses soft suppression."""
    *plain, sigma = operands
    if _number(node, 5, sigma, 0.0):
        raise ConversionError("soft suppression: soft_nms_sigma=0 can be converted")
    result = _suppressed(context, node, plain)
    return _answers(context, node, result, operands[2], [result[0], result[1]])
