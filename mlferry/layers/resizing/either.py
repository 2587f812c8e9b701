"""Crops that are resized, as products with two matrices.

A row of a matrix is the hat function max(0, 1 - |position - pixel|) of one sample, which is what
bilinear interpolation weighs the pixels with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.layers.params import Params
from mlferry.layers.resizing.definition import target_size
from mlferry.layers.writers import V, Writer
from mlferry.numerics.resizing import BOX_CODINGS


def crops(writer: Writer[V], params: Params, images: V, boxes: V) -> V:
    """Boxes [N, 4] out of images [..., H, W], which are the same for all or N."""
    order, is_centered = BOX_CODINGS[params.boxIndicesMode.boxMode]
    scale = params.spatialScale
    top, left, bottom, right = (
        writer.affine(writer.sliced(boxes, 1, place, place + 1), scale, 0.0) for place in order
    )
    weights = []
    sides = zip(((top, bottom), (left, right)), (-2, -1), target_size(params), strict=True)
    for (begin, end), axis, count in sides:
        start, finish = begin, end
        if is_centered:
            half = writer.affine(end, 0.5, 0.0)
            start, finish = writer.binary("sub", begin, half), writer.binary("add", begin, half)
        if params.normalizedCoordinates:
            last = last_position(writer, images, axis)
            start, finish = (writer.binary("mul", each, last) for each in (start, finish))
        places = spread(writer, params.mode.samplingMethod, start, finish, count)
        weights.append(writer.expand(hats(writer, images, axis, places), [1, 2]))
    return sampled(writer, images, *weights)


def last_position(writer: Writer[V], images: V, axis: int) -> V:
    """The position of the last pixel of an axis, as a float."""
    extent = writer.extent(images, axis)
    if isinstance(extent, int):
        return writer.number(extent - 1)
    return writer.affine(writer.size(images, axis), 1.0, -1.0)


def hats(writer: Writer[V], images: V, axis: int, positions: V) -> V:
    """The weights [..., samples, pixels] of samples [..., samples]; outside the edge counts."""
    last = last_position(writer, images, axis)
    inside = writer.binary("minimum", writer.binary("maximum", positions, 0.0), last)
    pixels = writer.positions(writer.extent(images, axis))
    away = writer.unary("abs", writer.binary("sub", writer.expand(inside, [-1]), pixels))
    return writer.unary("relu", writer.affine(away, -1.0, 1.0))


def sampled(writer: Writer[V], x: V, rows: V, columns: V) -> V:
    """rows x columns^T, for the last two axes."""
    rank = writer.rank(columns)
    turned = writer.transpose(columns, [*range(rank - 2), rank - 1, rank - 2])
    return writer.matmul(writer.matmul(rows, x), turned)


# ---- positions: so many samples of an interval with ends [..., 1] --------------------------------


def _steps(writer: Writer[V], start: V, length: V, steps: ArrayLike) -> V:
    offsets = writer.binary("mul", length, writer.constant(np.asarray(steps, np.float32)))
    return writer.binary("add", start, offsets)


def _from_end_to_end(writer: Writer[V], start: V, end: V, count: int) -> V:
    return _steps(writer, start, writer.binary("sub", end, start), np.linspace(0, 1, count))


def _aligned(writer: Writer[V], start: V, end: V, count: int) -> V:
    if count > 1:
        return _from_end_to_end(writer, start, end, count)
    return writer.affine(writer.binary("add", start, end), 0.5, 0.0)


def _spaced(writer: Writer[V], start: V, end: V, count: int) -> V:
    """UPSAMPLE_MODE: not beyond the end."""
    length = writer.affine(writer.binary("sub", end, start), 1.0, 1.0)
    positions = _steps(writer, start, length, np.arange(count) / count)
    return writer.binary("minimum", positions, writer.binary("maximum", start, end))


def _centres(writer: Writer[V], start: V, end: V, count: int) -> V:
    """ROI_ALIGN_MODE: the centres of equal parts of at least one pixel."""
    length = writer.binary("maximum", writer.binary("sub", end, start), 1.0)
    return _steps(writer, start, length, (np.arange(count) + 0.5) / count)


def spread(writer: Writer[V], mode: str, start: V, end: V, count: int) -> V:
    """As `mlferry.numerics.resizing.SAMPLING`, for ends that are computed."""
    positions: V = _SAMPLING[mode](writer, start, end, count)
    return positions


_SAMPLING: dict[str, Callable[[Any, Any, Any, int], Any]] = {
    "STRICT_ALIGN_ENDPOINTS_MODE": _from_end_to_end,
    "ALIGN_ENDPOINTS_MODE": _aligned,
    "UPSAMPLE_MODE": _spaced,
    "ROI_ALIGN_MODE": _centres,
}
