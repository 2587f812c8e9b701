"""Projective transforms of images, known or computed by the model, for all frontends.

As `ImageProjectiveTransformV3` of TensorFlow, whose arithmetic is float32: the pixel at (x, y) of
the result comes from ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k) with k = c0 x + c1 y + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, known, to_nearest
from mlferry.converters.sampling import GridSampling, clipped, sampled
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

Array = NDArray[np.float32]


class Filling(NamedTuple):
    """How a pixel of the result is computed from the image.

    Attributes:
        interpolation: "nearest" or "bilinear".
        mode: where positions beyond the image are: "constant" (all `value`), "nearest", "reflect"
            or "wrap".
        value: of the pixels beyond the image.
    """

    interpolation: str
    mode: str
    value: float


def projected(
    context: Lowering,
    x: Blob,
    transform: NDArray[np.float32] | Blob,
    size: tuple[int, int],
    filling: Filling,
) -> Blob:
    """[N, H, W, C] as [N, *size, C], by gathering pixels with weights.

    Args:
        x: in the source's order; its height, width and channels are known.
        transform: [8] or [1, 8], for all images, or [N, 8]: a0, a1, a2, b0, b1, b2, c0, c1.
        size: height and width of the result.
        filling: how pixels are computed, including those beyond the image.

    Raises:
        ConversionError: the shape of the transforms is another, an option is unknown, or the
            size of the images is flexible.
    """
    if filling.mode not in _MODES:
        raise ConversionError(f"fill_mode={filling.mode!r}: one of {', '.join(_MODES)}")
    if filling.interpolation not in ("nearest", "bilinear"):
        raise ConversionError(f"interpolation={filling.interpolation!r}: nearest or bilinear")
    if None in x.known[1:]:
        raise ConversionError("a projective transform of images of a flexible size")
    if isinstance(transform, Blob):
        return _by_computed(context, x, transform, size, filling)
    rows = np.asarray(transform, np.float32)
    if rows.shape[-1:] != (8,) or rows.ndim > 2:
        raise ConversionError(f"transforms of shape {rows.shape}: [8] or [images, 8] are taken")
    if rows.size != 8:
        return _by_computed(context, x, context.constant(rows), size, filling)
    batch, height, width, channels = x.known
    assert height is not None
    assert width is not None
    places, weights = _samples(
        rows.ravel(), (height, width), size, filling.interpolation, _MODES[filling.mode].known
    )
    # minus the filling, which is added at the end, so that weights beyond the image vanish
    less = affine(context, x, 1.0, -filling.value) if filling.value else x
    pixels = context.reshape(less, (batch, height * width, channels), layout=SOURCE)
    total: Blob | None = None
    for place, weight in zip(places, weights, strict=True):
        output = context.gather(pixels, context.constant(place), 1)
        factor = context.constant(weight[:, None])
        part = context.multiply(output, factor)
        total = part if total is None else context.add(total, part)
    assert total is not None
    total = affine(context, total, 1.0, filling.value) if filling.value else total
    return context.reshape(total, (batch, *size, channels), layout=SOURCE)


def _by_computed(
    context: Lowering, x: Blob, transform: Blob, size: tuple[int, int], filling: Filling
) -> Blob:
    """Use transforms that the model computes: [8], [1, 8] or [N, 8]."""
    shape, (batch, height, width, _) = known(transform), known(x)
    if shape not in ((8,), (1, 8), (batch, 8)):
        raise ConversionError(f"transforms of shape {shape}: [8], [1, 8] or [{batch}, 8] are taken")
    rows = context.reshape(transform, (-1, 8, 1, 1), layout=SOURCE)
    parts = context.split(rows, 8, 1)
    across, down = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    xs, ys = (context.constant(grid[None, None].astype(np.float32)) for grid in (across, down))

    def line(first: Blob, second: Blob) -> Blob:
        return context.add(context.multiply(first, xs), context.multiply(second, ys))

    depth = affine(context, line(parts[6], parts[7]), 1.0, 1.0)
    lost = context.emit("equal", depth, context.constant([0.0]))
    safe = context.add(depth, lost)
    positions = []
    for (first, second, third), extent in ((parts[3:6], height), (parts[:3], width)):
        at = context.divide(context.add(line(first, second), third), safe)
        at = _MODES[filling.mode].computed(context, at, extent)
        if filling.interpolation == "nearest":
            at = to_nearest(context, at)
        # [N or 1, 1, rows, columns] for each image as [N, rows, columns, 1]
        at = context.reshape(at, (-1, *size, 1), layout=SOURCE)
        if batch != 1 and shape != (batch, 8):
            at = context.layer("tile", at, layout=SOURCE, reps=(batch, 1, 1, 1))
        positions.append(at)
    mode = "nearest" if filling.interpolation == "nearest" else "linear"
    images = affine(context, x, 1.0, -filling.value) if filling.value else x
    first_axes = context.transpose(images, (0, 3, 1, 2))
    output = sampled(context, first_axes, positions, GridSampling(mode, "zeros", True))
    there = affine(context, lost, -1.0, 1.0)
    output = context.multiply(output, there)
    output = affine(context, output, 1.0, filling.value) if filling.value else output
    return context.transpose(output, (0, 2, 3, 1))


def _samples(
    transform: Array,
    size: tuple[int, int],
    out: tuple[int, int],
    interpolation: str,
    mode: Callable[[Array, int], Array],
) -> tuple[list[NDArray[np.int64]], list[Array]]:
    """The source pixels of each pixel, and their weights, which are 0 beyond the image."""
    ys, xs = (grid.astype(np.float32).ravel() for grid in np.indices(out))
    a, b, c = transform[:3], transform[3:6], transform[6:]
    depth = c[0] * xs + c[1] * ys + np.float32(1)
    lost = depth == 0
    safe = np.where(lost, np.float32(1), depth)
    positions = [
        mode((first * xs + second * ys + third) / safe, extent)
        for (first, second, third), extent in ((b, size[0]), (a, size[1]))
    ]
    pairs = [_neighbours(position, interpolation) for position in positions]
    places, weights = [], []
    for y, down in pairs[0]:
        for x, right in pairs[1]:
            inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1]) & ~lost
            weight = np.where(lost, np.float32(0), down * right)
            kept_y, kept_x = np.clip(y, 0, size[0] - 1), np.clip(x, 0, size[1] - 1)
            places.append((kept_y * size[1] + kept_x).astype(np.int64))
            weights.append(np.where(inside, weight, np.float32(0)))
    remaining = [index for index, weight in enumerate(weights) if weight.any()] or [0]
    return [places[i] for i in remaining], [weights[i] for i in remaining]


def _neighbours(position: Array, interpolation: str) -> list[tuple[Array, Array]]:
    """Integer places along one axis, and their weights."""
    if interpolation == "nearest":
        nearest = np.trunc(position + np.copysign(np.float32(0.5), position))
        return [(nearest, np.ones_like(position))]
    floor = np.floor(position)
    return [(floor, floor + np.float32(1) - position), (floor + np.float32(1), position - floor)]


def _reflect(position: Array, size: int) -> Array:
    """[abcd] continues as [dcba|abcd|dcba]."""
    if size <= 1:
        return np.zeros_like(position)
    period = 2 * size
    below = np.where(position < 0, position + period * np.trunc(-position / period), position)
    below = np.where(below < -size, below + period, -below - 1)
    above = position - period * np.trunc(position / period)
    above = np.where(above >= size, period - above - 1, above)
    output = np.where(position < 0, below, np.where(position > size - 1, above, position))
    return np.clip(output, 0, size - 1).astype(np.float32)


def _wrap(position: Array, size: int) -> Array:
    """[abcd] continues as [abcd|abcd|abcd]; the gap between two has no width."""
    if size <= 1:
        return np.zeros_like(position)
    below = position + size * (np.trunc(-position / (size - 1)) + 1)
    above = position - size * np.trunc(position / (size - 1))
    output = np.where(position < 0, below, np.where(position > size - 1, above, position))
    return np.clip(output, 0, size - 1).astype(np.float32)


def _computed_reflection(context: Lowering, position: Blob, size: int) -> Blob:
    """`_reflect` by layers: both directions fold into [0, 2 * size)."""
    period = context.constant([2.0 * size])
    magnitude = context.emit("unary", position, type="ABS")
    within = context.emit("modBroadcastable", magnitude, period)
    below = context.emit("lessThan", position, context.constant([0.0]))
    start = context.subtract(within, below)
    back = affine(context, start, -1.0, 2.0 * size - 1)
    return clipped(context, context.minimum(start, back), size)


def _computed_wrap(context: Lowering, position: Blob, size: int) -> Blob:
    """`_wrap` by layers: whole spans of size - 1 are counted, and as many sizes taken off."""
    if size <= 1:
        return affine(context, position, 0.0)
    magnitude = context.emit("unary", position, type="ABS")
    quotient = context.divide(magnitude, context.constant([float(size - 1)]))
    spans = context.emit("floor", quotient)
    below = context.emit("lessThan", position, context.constant([0.0]))
    last = context.emit("equal", position, context.constant([float(size - 1)]))
    upward = context.multiply(context.add(spans, context.constant([1.0])), below)
    above = affine(context, below, -1.0, 1.0)
    downward = context.multiply(context.subtract(spans, last), above)
    count = context.subtract(upward, downward)
    return clipped(context, context.add(position, affine(context, count, float(size))), size)


class Continuation(NamedTuple):
    """How an image continues beyond its edges, for known and for computed positions."""

    known: Callable[[Array, int], Array]
    computed: Callable[[Lowering, Blob, int], Blob]


_MODES: dict[str, Continuation] = {
    "constant": Continuation(
        lambda position, size: position, lambda context, position, size: position
    ),
    "nearest": Continuation(lambda position, size: np.clip(position, 0, size - 1), clipped),
    "reflect": Continuation(_reflect, _computed_reflection),
    "wrap": Continuation(_wrap, _computed_wrap),
}
