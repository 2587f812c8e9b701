"""Expected values, slowly: one output value at a time, straight from the definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pads = Sequence[tuple[int, int]]


def values(*shape: int, seed: int = 0) -> Array:
    """Random values of both signs."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def same_pads(sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int], top: bool) -> Any:
    pads = []
    for size, span, stride in zip(sizes, spans, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + span - size)
        small, large = total // 2, total - total // 2
        pads.append((large, small) if top else (small, large))
    return pads


def window_counts(
    sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int], pads: Pads
) -> list[int]:
    return [
        (size + sum(pad) - span) // stride + 1
        for size, span, stride, pad in zip(sizes, spans, strides, pads, strict=True)
    ]


def convolution(
    x: Array,
    w: Array,
    *,
    stride: Sequence[int],
    dilation: Sequence[int] | None = None,
    pads: Pads,
    groups: int = 1,
) -> Array:
    """x [B, C, ...], w [O, C / groups, ...], for any number of spatial axes."""
    dims = x.ndim - 2
    dilation = dilation or (1,) * dims
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilation, strict=True)]
    counts = window_counts(x.shape[2:], spans, stride, pads)
    y = np.zeros((x.shape[0], w.shape[0], *counts))
    per_in, per_out = x.shape[1] // groups, w.shape[0] // groups
    for b, o, *place in np.ndindex(y.shape):
        total = 0.0
        for c, *tap in np.ndindex(w.shape[1:]):
            source = [
                n * s + t * d - pad[0]
                for n, s, t, d, pad in zip(place, stride, tap, dilation, pads, strict=True)
            ]
            if all(0 <= i < size for i, size in zip(source, x.shape[2:], strict=True)):
                channel = (o // per_out) * per_in + c
                total += float(x[(b, channel, *source)]) * float(w[(o, c, *tap)])
        y[(b, o, *place)] = total
    return y


def transposed(
    x: Array,
    w: Array,
    *,
    stride: Sequence[int],
    dilation: Sequence[int] | None = None,
    groups: int = 1,
    start: Sequence[int],
    size: Sequence[int],
) -> Array:
    """Spread x [B, C, ...] by w [C, O / groups, ...]; keep `size` entries from `start` on."""
    dims = x.ndim - 2
    dilation = dilation or (1,) * dims
    per_in, per_out = x.shape[1] // groups, w.shape[1]
    y = np.zeros((x.shape[0], per_out * groups, *size))
    for b, c, *place in np.ndindex(x.shape):
        for o, *tap in np.ndindex(w.shape[1:]):
            target = [
                n * s + t * d - first
                for n, s, t, d, first in zip(place, stride, tap, dilation, start, strict=True)
            ]
            if all(0 <= i < extent for i, extent in zip(target, size, strict=True)):
                out = (c // per_in) * per_out + o
                y[(b, out, *target)] += float(x[(b, c, *place)]) * float(w[(c, o, *tap)])
    return y


def pooling(
    x: Array,
    *,
    kernel: Sequence[int],
    stride: Sequence[int],
    pads: Pads,
    combine: Callable[[list[float], int], float],
    counts: Sequence[int] | None = None,
    counted: Pads | None = None,
) -> Array:
    """`combine` gets the real values of a window, and how many positions it has in all.

    Positions count as far as the padding `counted` reaches.
    """
    counts = counts or window_counts(x.shape[2:], kernel, stride, pads)
    counted = counted or [(10**6, 10**6)] * len(kernel)
    y = np.zeros((*x.shape[:2], *counts))
    for b, c, *place in np.ndindex(y.shape):
        real, total = [], 0
        for tap in itertools.product(*map(range, kernel)):
            source = [
                n * s + t - pad[0] for n, s, t, pad in zip(place, stride, tap, pads, strict=True)
            ]
            inside = zip(source, x.shape[2:], counted, strict=True)
            total += all(-edge[0] <= i < size + edge[1] for i, size, edge in inside)
            if all(0 <= i < size for i, size in zip(source, x.shape[2:], strict=True)):
                real.append(float(x[(b, c, *source)]))
        y[(b, c, *place)] = combine(real, total)
    return y


def sample(image: Array, rows: Sequence[float], columns: Sequence[float]) -> Array:
    """Bilinear samples of the last two axes at every pair of positions, which lie inside."""

    def at(line: Array, position: float) -> Array:
        position = min(max(position, 0.0), line.shape[-1] - 1.0)
        low = math.floor(position)
        high = min(low + 1, line.shape[-1] - 1)
        part = position - low
        return line[..., low] * (1 - part) + line[..., high] * part

    tall = np.stack([at(np.swapaxes(image, -1, -2), row) for row in rows], axis=-1)
    tall = np.swapaxes(tall, -1, -2)
    return np.stack([at(tall, column) for column in columns], axis=-1)
