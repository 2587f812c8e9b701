"""Images through a projective transform that is known, for every frontend.

As `ImageProjectiveTransformV3` of TensorFlow, whose arithmetic is float32: the pixel at (x, y) of
the result comes from ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k) with k = c0 x + c1 y + 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

Array = NDArray[np.float32]


def projected(
    context: Lowering,
    x: Blob,
    transform: NDArray[np.float32],
    size: tuple[int, int],
    interpolation: str,
    fill_mode: str,
    fill_value: float,
) -> Blob:
    """[N, H, W, C] as [N, *size, C], by gathering pixels with weights.

    Args:
        context: what adds layers.
        x: in the source's order; its height, width and channels are known.
        transform: [8], or [1, 8]: a0, a1, a2, b0, b1, b2, c0, c1.
        size: height and width of the result.
        interpolation: "nearest" or "bilinear".
        fill_mode: where positions beyond the image are: "constant" (all `fill_value`), "nearest",
            "reflect" or "wrap".
        fill_value: of the pixels beyond the image.

    Raises:
        ConversionError: there is another number of transforms, or an option is unknown.
    """
    rows = np.asarray(transform, np.float32)
    if rows.size != 8:
        raise ConversionError(f"transforms of shape {rows.shape}: one for all images, of 8 numbers")
    if fill_mode not in _MODES:
        raise ConversionError(f"fill_mode={fill_mode!r}: one of {', '.join(_MODES)}")
    if interpolation not in ("nearest", "bilinear"):
        raise ConversionError(f"interpolation={interpolation!r}: nearest or bilinear")
    batch, height, width, channels = x.known
    if height is None or width is None or channels is None:
        raise ConversionError("a projective transform of images of a flexible size")
    places, weights, filled = _samples(
        rows.ravel(), (height, width), size, interpolation, _MODES[fill_mode]
    )
    pixels = context.reshape(x, (batch, height * width, channels), layout=SOURCE)
    total: Blob | None = None
    for place, weight in zip(places, weights, strict=True):
        output = context.layer("gather", pixels, context.constant(place), layout=SOURCE, axis=1)
        factor = context.constant(weight[:, None])
        part = context.layer("multiplyBroadcastable", output, factor, layout=SOURCE)
        total = part if total is None else _sum(context, total, part)
    assert total is not None
    if fill_value and filled.any():
        total = _sum(context, total, context.constant(filled[:, None] * np.float32(fill_value)))
    return context.reshape(total, (batch, *size, channels), layout=SOURCE)


def _sum(context: Lowering, left: Blob, right: Blob) -> Blob:
    return context.layer("addBroadcastable", left, right, layout=SOURCE)


def _samples(
    transform: Array,
    size: tuple[int, int],
    out: tuple[int, int],
    interpolation: str,
    mode: Callable[[Array, int], Array],
) -> tuple[list[NDArray[np.int64]], list[Array], Array]:
    """The pixels that make each one of the result, their weights, and the weight of the filling."""
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
    filled = lost.astype(np.float32)
    for y, down in pairs[0]:
        for x, right in pairs[1]:
            inside = (y >= 0) & (y < size[0]) & (x >= 0) & (x < size[1]) & ~lost
            weight = np.where(lost, np.float32(0), down * right)
            kept_y, kept_x = np.clip(y, 0, size[0] - 1), np.clip(x, 0, size[1] - 1)
            places.append((kept_y * size[1] + kept_x).astype(np.int64))
            weights.append(np.where(inside, weight, np.float32(0)))
            filled += np.where(inside, np.float32(0), weight)
    remaining = [index for index, weight in enumerate(weights) if weight.any()] or [0]
    return [places[i] for i in remaining], [weights[i] for i in remaining], filled


def _neighbours(position: Array, interpolation: str) -> list[tuple[Array, Array]]:
    """Along one axis: whole places, and their weights."""
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


_MODES: dict[str, Callable[[Array, int], Array]] = {
    "constant": lambda position, size: position,
    "nearest": lambda position, size: np.clip(position, 0, size - 1),
    "reflect": _reflect,
    "wrap": _wrap,
}
