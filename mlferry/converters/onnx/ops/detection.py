"""Boxes: suppression of those that overlap, and what an image has inside of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.detection import centred
from mlferry.converters.flexible_resizing import Number, numbers, size_along
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, emit, ints, joined, known, shaped
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

_LEAST = float(np.finfo(np.float32).min)


@op("NonMaxSuppression", constants=(2, 3, 4))
def non_max_suppression(
    context: Lowering,
    node: Node,
    boxes: Blob,
    scores: Blob,
    most: NDArray[Any] | None = None,
    iou: NDArray[Any] | None = None,
    least: NDArray[Any] | None = None,
) -> Blob:
    """Rows of (batch, class, box): every class of every image is suppressed on its own.

    Core ML keeps the best box where none reaches the threshold, so scores are asked again.
    """
    batch, count, _ = known(boxes)
    classes = known(scores)[1]
    keep = min(0 if most is None else ints(most)[0], count)
    if keep < 1:
        raise ConversionError("max_output_boxes_per_class of 0: a result without elements")
    limit = None if least is None else float(np.ravel(least)[0])
    middle = boxes if node.attrs.get("center_point_box", 0) else centred(context, boxes)
    rows = _for_every_class(context, middle, (batch, classes, count))
    values = shaped(context, scores, (batch * classes, count, 1))
    _, best, places, _ = context.outputs(
        4,
        "NonMaximumSuppression",
        rows,
        values,
        layout=SOURCE,
        maxBoxes=keep,
        iouThreshold=0.0 if iou is None else float(np.ravel(iou)[0]),
        scoreThreshold=_LEAST if limit is None else limit,
        perClassSuppression=False,
    )
    there = emit(context, "greaterEqual", places, alpha=0.0)
    if limit is not None:
        best = shaped(context, best, (batch * classes, keep))
        there = emit(context, "logicalAnd", there, emit(context, "greaterThan", best, alpha=limit))
    group = np.arange(batch * classes)[:, None].repeat(keep, 1)
    fixed = context.constant(np.stack([group // classes, group % classes], axis=-1))
    listed = context.layer(
        "concatND",
        fixed,
        shaped(context, places, (batch * classes, keep, 1)),
        layout=SOURCE,
        axis=-1,
    )
    rows_there = context.layer("whereNonZero", there, layout=SOURCE)
    return context.layer("gatherND", listed, rows_there, layout=SOURCE)


def _for_every_class(context: Lowering, boxes: Blob, sizes: tuple[int, int, int]) -> Blob:
    batch, classes, count = sizes
    if classes == 1:
        return boxes
    repeated = context.layer(
        "tile", context.expand(boxes, 1), layout=SOURCE, reps=(1, classes, 1, 1)
    )
    return shaped(context, repeated, (batch * classes, count, 4))


@op("RoiAlign")
def roi_align(context: Lowering, node: Node, x: Blob, rois: Blob, batch: Blob) -> Blob:
    """Bilinear samples averaged over each bin: two products with matrices, one an axis."""
    if node.attrs.get("mode", "avg") != "avg":
        raise ConversionError(f"mode={node.attrs['mode']!r}: avg can be converted")
    ratio = node.attrs.get("sampling_ratio", 0)
    if ratio < 1:
        raise ConversionError(f"sampling_ratio={ratio}: the number of samples depends on the data")
    default = "half_pixel" if context.graph.version >= 16 else "output_half_pixel"
    aligned = node.attrs.get("coordinate_transformation_mode", default) == "half_pixel"
    scale = node.attrs.get("spatial_scale", 1.0)
    moved = affine(context, rois, scale, -0.5 if aligned else 0.0)
    left, top, right, bottom = context.outputs(
        4, "splitND", moved, layout=SOURCE, axis=-1, numSplits=4
    )
    down = _bins(
        context,
        top,
        bottom,
        (node.attrs.get("output_height", 1), ratio),
        size_along(context, x, 2),
        aligned=aligned,
    )
    across = _bins(
        context,
        left,
        right,
        (node.attrs.get("output_width", 1), ratio),
        size_along(context, x, 3),
        aligned=aligned,
    )
    images = context.layer("gather", x, batch, layout=SOURCE, axis=0)
    rows = context.layer("batchedMatmul", context.expand(down, 1), images, layout=SOURCE)
    return context.layer(
        "batchedMatmul", rows, context.expand(across, 1), layout=SOURCE, transposeB=True
    )


def _bins(
    context: Lowering, start: Blob, end: Blob, bins: tuple[int, int], size: Number, *, aligned: bool
) -> Blob:
    """[regions, bins, size]: how much each pixel of an axis counts for each bin."""
    count, ratio = bins
    span = emit(context, "subtractBroadcastable", end, start)
    if not aligned:
        span = emit(context, "maxBroadcastable", span, context.constant([1.0]))
    steps = (np.arange(count * ratio) + 0.5) / (count * ratio)
    offsets = emit(context, "multiplyBroadcastable", span, context.constant(steps[None]))
    positions = emit(context, "addBroadcastable", start, offsets)
    # samples beyond a pixel's width outside are 0, nearer ones take the edge
    inside = emit(
        context,
        "logicalAnd",
        emit(context, "greaterEqual", positions, alpha=-1.0),
        emit(context, "lessEqual", positions, size.blob),
    )
    within = emit(context, "activation", positions, ReLU={})
    clipped = emit(context, "minBroadcastable", within, (size - 1.0).blob)
    pixels = numbers(size).blob
    distance = emit(context, "subtractBroadcastable", context.expand(clipped, -1), pixels)
    hat = emit(context, "unary", distance, type="ABS")
    weights = emit(context, "activation", affine(context, hat, -1.0, 1.0), ReLU={})
    weights = emit(context, "multiplyBroadcastable", weights, context.expand(inside, -1))
    means = np.kron(np.eye(count), np.full((1, ratio), 1 / ratio))
    return context.layer("batchedMatmul", context.constant(means), weights, layout=SOURCE)


@op("MaxRoiPool")
def max_roi_pool(context: Lowering, node: Node, x: Blob, rois: Blob) -> Blob:
    """The largest value of each bin of a region; 0 in a bin without pixels.

    A region is (image, left, top, right, bottom), both ends included, in whole pixels.
    """
    height, width = node.attrs["pooled_shape"]
    scale = node.attrs.get("spatial_scale", 1.0)
    which, *corners = context.outputs(5, "splitND", rois, layout=SOURCE, axis=-1, numSplits=5)
    left, top, right, bottom = (_nearest(context, affine(context, v, scale)) for v in corners)
    image = context.layer("squeeze", which, layout=SOURCE, axes=(1,))
    pixels = context.layer("gather", x, image, layout=SOURCE, axis=0)
    least = context.constant([_LEAST])
    for axis, start, end, count in ((2, top, bottom, height), (3, left, right, width)):
        inside = _pixels_of_bins(context, start, end, count, size_along(context, x, axis))
        bins = []
        for k in range(count):
            mask = sliced(context, inside, [k], [k + 1], [1], None)  # [regions, 1, size]
            mask = context.expand(mask, 3 if axis == 2 else 1)
            kept = emit(context, "whereBroadcastable", mask, pixels, least)
            bins.append(
                context.layer("reduceMax", kept, layout=SOURCE, axes=(axis,), keepDims=True)
            )
        pixels = joined(context, bins, axis)
    is_empty = emit(context, "lessEqual", pixels, alpha=_LEAST)
    return emit(context, "whereBroadcastable", is_empty, context.constant([0.0]), pixels)


def _nearest(context: Lowering, x: Blob) -> Blob:
    """The nearest integer; halves go away from 0."""
    whole = emit(context, "floor", affine(context, emit(context, "unary", x, type="ABS"), 1.0, 0.5))
    return emit(context, "multiplyBroadcastable", emit(context, "sign", x), whole)


def _pixels_of_bins(context: Lowering, start: Blob, end: Blob, count: int, size: Number) -> Blob:
    """[regions, bins, size]: 1 where a pixel belongs to a bin; `start` and `end` are [regions, 1].

    Bins share the pixels that lie on their borders.
    """
    span = affine(context, emit(context, "subtractBroadcastable", end, start), 1.0, 1.0)
    span = emit(context, "maxBroadcastable", span, context.constant([1.0]))
    step = emit(context, "divideBroadcastable", span, context.constant([float(count)]))
    pixels = numbers(size).blob
    limits = []
    for kind, first in (("floor", 0), ("ceil", 1)):
        factors = context.constant(np.arange(count, dtype=np.float32)[None] + first)
        place = emit(context, kind, emit(context, "multiplyBroadcastable", step, factors))
        limits.append(context.expand(emit(context, "addBroadcastable", place, start), -1))
    return emit(
        context,
        "logicalAnd",
        emit(context, "greaterEqual", pixels, limits[0]),
        emit(context, "lessThan", pixels, limits[1]),
    )
