"""Boxes: suppressing those that overlap, and pooling what an image has in them."""

from __future__ import annotations

import numpy as np

from mlferry.converters.detection import centred
from mlferry.converters.flexible_resizing import Number, numbers, size_along
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import affine, ints, joined, known, shaped, to_nearest
from mlferry.converters.slices import sliced
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

_LEAST = float(np.finfo(np.float32).min)


@op("NonMaxSuppression", constants=(2, 3, 4))
def non_max_suppression(
    context: Lowering,
    node: Node,
    boxes: Blob,
    scores: Blob,
    most: Array | None = None,
    iou: Array | None = None,
    least: Array | None = None,
) -> Blob:
    """Rows of (batch, class, box): every class of every image is suppressed on its own.

    Core ML keeps the best box even if none reaches the threshold, so scores are compared again.
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
        maxBoxes=keep,
        iouThreshold=0.0 if iou is None else float(np.ravel(iou)[0]),
        scoreThreshold=_LEAST if limit is None else limit,
        perClassSuppression=False,
    )
    there = context.emit("greaterEqual", places, alpha=0.0)
    if limit is not None:
        best = shaped(context, best, (batch * classes, keep))
        there = context.emit("logicalAnd", there, context.emit("greaterThan", best, alpha=limit))
    group = np.arange(batch * classes)[:, None].repeat(keep, 1)
    fixed = context.constant(np.stack([group // classes, group % classes], axis=-1))
    listed = context.concat([fixed, shaped(context, places, (batch * classes, keep, 1))], -1)
    rows_there = context.layer("whereNonZero", there)
    return context.layer("gatherND", listed, rows_there)


def _for_every_class(context: Lowering, boxes: Blob, sizes: tuple[int, int, int]) -> Blob:
    batch, classes, count = sizes
    if classes == 1:
        return boxes
    repeated = context.layer("tile", context.expand(boxes, 1), reps=(1, classes, 1, 1))
    return shaped(context, repeated, (batch * classes, count, 4))


@op("RoiAlign")
def roi_align(context: Lowering, node: Node, x: Blob, rois: Blob, batch: Blob) -> Blob:
    """Averages bilinear samples over each bin, by products with a matrix for each axis."""
    if node.attrs.get("mode", "avg") != "avg":
        raise ConversionError(f"mode={node.attrs['mode']!r}: avg can be converted")
    ratio = node.attrs.get("sampling_ratio", 0)
    if ratio < 1:
        raise ConversionError(f"sampling_ratio={ratio}: the number of samples depends on the data")
    default = "half_pixel" if context.graph.version >= 16 else "output_half_pixel"
    aligned = node.attrs.get("coordinate_transformation_mode", default) == "half_pixel"
    scale = node.attrs.get("spatial_scale", 1.0)
    moved = affine(context, rois, scale, -0.5 if aligned else 0.0)
    left, top, right, bottom = context.split(moved, 4, -1)
    ends = {"height": (top, bottom, 2), "width": (left, right, 3)}
    down, across = (
        _bins(
            context,
            start,
            end,
            (node.attrs.get(f"output_{name}", 1), ratio),
            size_along(context, x, axis),
            aligned=aligned,
        )
        for name, (start, end, axis) in ends.items()
    )
    images = context.gather(x, batch, 0)
    rows = context.matmul(context.expand(down, 1), images)
    return context.matmul(rows, context.expand(across, 1), transpose_y=True)


def _bins(
    context: Lowering, start: Blob, end: Blob, bins: tuple[int, int], size: Number, *, aligned: bool
) -> Blob:
    """[regions, bins, size]: the weight of each pixel of an axis in each bin."""
    count, ratio = bins
    context.compute(8 * count * ratio * count)
    span = context.subtract(end, start)
    if not aligned:
        span = context.maximum(span, context.constant([1.0]))
    steps = (np.arange(count * ratio) + 0.5) / (count * ratio)
    offsets = context.multiply(span, context.constant(steps[None]))
    positions = context.add(start, offsets)
    # samples beyond a pixel's width outside are 0, nearer ones take the edge
    inside = context.emit(
        "logicalAnd",
        context.emit("greaterEqual", positions, alpha=-1.0),
        context.emit("lessEqual", positions, size.blob),
    )
    within = context.emit("activation", positions, ReLU={})
    clipped = context.minimum(within, (size - 1.0).blob)
    pixels = numbers(size).blob
    distance = context.subtract(context.expand(clipped, -1), pixels)
    hat = context.emit("unary", distance, type="ABS")
    weights = context.emit("activation", affine(context, hat, -1.0, 1.0), ReLU={})
    weights = context.multiply(weights, context.expand(inside, -1))
    means = np.kron(np.eye(count), np.full((1, ratio), 1 / ratio))
    return context.matmul(context.constant(means), weights)


@op("MaxRoiPool")
def max_roi_pool(context: Lowering, node: Node, x: Blob, rois: Blob) -> Blob:
    """The largest value of each bin of a region; 0 in a bin without pixels.

    A region is (image, left, top, right, bottom), both ends included, in whole pixels.
    """
    height, width = node.attrs["pooled_shape"]
    scale = node.attrs.get("spatial_scale", 1.0)
    which, *corners = context.split(rois, 5, -1)
    left, top, right, bottom = (to_nearest(context, affine(context, v, scale)) for v in corners)
    image = context.layer("squeeze", which, axes=(1,))
    pixels = context.gather(x, image, 0)
    least = context.constant([_LEAST])
    for axis, start, end, count in ((2, top, bottom, height), (3, left, right, width)):
        inside = _pixels_of_bins(context, start, end, count, size_along(context, x, axis))
        bins = []
        for k in range(count):
            mask = sliced(context, inside, [k], [k + 1], [1], None)  # [regions, 1, size]
            mask = context.expand(mask, 3 if axis == 2 else 1)
            masked = context.where(mask, pixels, least)
            bins.append(context.reduce("reduceMax", masked, (axis,)))
        pixels = joined(context, bins, axis)
    is_empty = context.emit("lessEqual", pixels, alpha=_LEAST)
    return context.where(is_empty, context.constant([0.0]), pixels)


def _pixels_of_bins(context: Lowering, start: Blob, end: Blob, count: int, size: Number) -> Blob:
    """[regions, bins, size]: 1 if a pixel belongs to a bin; `start` and `end` are [regions, 1].

    Neighbouring bins share the pixels on their border.
    """
    context.compute(4 * count)
    span = affine(context, context.subtract(end, start), 1.0, 1.0)
    span = context.maximum(span, context.constant([1.0]))
    step = context.divide(span, context.constant([float(count)]))
    pixels = numbers(size).blob
    limits = []
    for kind, first in (("floor", 0), ("ceil", 1)):
        factors = context.constant(np.arange(count, dtype=np.float32)[None] + first)
        place = context.emit(kind, context.multiply(step, factors))
        limits.append(context.expand(context.add(place, start), -1))
    return context.emit(
        "logicalAnd",
        context.emit("greaterEqual", pixels, limits[0]),
        context.emit("lessThan", pixels, limits[1]),
    )
