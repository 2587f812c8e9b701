"""Sampling images and volumes at positions that the model computes, for all frontends."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, channels_first, channels_last, known
from mlferry.converters.values import SOURCE, Blob


class GridSampling(NamedTuple):
    """How values between and beyond pixels are computed; with `corners`, ends are pixel centres."""

    mode: str
    padding: str
    corners: bool


def clipped(context: Lowering, p: Blob, size: int) -> Blob:
    """Positions clipped to 0 to size - 1: the edge pixel continues beyond the edge."""
    return context.emit("clip", p, minVal=0.0, maxVal=float(size - 1))


def reflected(context: Lowering, p: Blob, size: int, corners: bool) -> Blob:
    """Positions reflected between the outermost pixels' centres, or their edges."""
    start, span = (0.0, size - 1.0) if corners else (-0.5, float(size))
    if span == 0:
        return affine(context, p, 0.0)
    moved = context.emit("unary", affine(context, p, 1.0, -start), type="ABS")
    period = context.constant([2 * span])
    within = context.emit("modBroadcastable", moved, period)
    back = affine(context, within, -1.0, 2 * span)
    folded = affine(context, context.minimum(within, back), 1.0, start)
    return clipped(context, folded, size)


def sampled(context: Lowering, x: Blob, positions: list[Blob], grid: GridSampling) -> Blob:
    """The sum over neighbours of weight times value, as [N, C, ...]."""
    choices = [_neighbours(context, p, grid.mode) for p in positions]
    total: Blob | None = None
    last = channels_last(context, x)
    for corner in itertools.product(*choices):
        places, weights = [c[0] for c in corner], [c[1] for c in corner]
        value = _values(context, last, places, known(x)[2:], grid)
        for weight in weights:
            value = value if weight is None else context.multiply(value, weight)
        total = value if total is None else context.add(total, value)
    assert total is not None
    return channels_first(context, total)


def _neighbours(context: Lowering, p: Blob, mode: str) -> list[tuple[Blob, Blob | None]]:
    """The places around a position along one axis, and their weights."""
    if mode == "nearest":
        return [(context.emit("round", p), None)]
    floor = context.emit("floor", p)
    fraction = context.subtract(p, floor)
    if mode == "linear":
        return [
            (floor, affine(context, fraction, -1.0, 1.0)),
            (affine(context, floor, 1.0, 1.0), fraction),
        ]
    results: list[tuple[Blob, Blob | None]] = []
    for offset in (-1, 0, 1, 2):
        distance = context.emit("unary", affine(context, fraction, 1.0, -float(offset)), type="ABS")
        results.append(
            (affine(context, floor, 1.0, float(offset)), _cubic(context, distance, offset))
        )
    return results


def _cubic(context: Lowering, d: Blob, offset: int) -> Blob:
    """Keys's kernel, in Horner's form, of the inner or the outer neighbours."""
    inner, a = offset in (0, 1), -0.75
    third, second, first, zeroth = (
        (a + 2, -(a + 3), 0.0, 1.0) if inner else (a, -5 * a, 8 * a, -4 * a)
    )
    value = affine(context, d, third, second)
    value = affine(context, context.multiply(value, d), 1.0, first)
    return affine(context, context.multiply(value, d), 1.0, zeroth)


def _values(
    context: Lowering, x: Blob, places: list[Blob], sizes: tuple[int, ...], grid: GridSampling
) -> Blob:
    """The values of [N, ..., C] at integer places; values outside are 0, or those of the edge."""
    if grid.padding == "reflection" and grid.mode == "cubic":
        places = [
            reflected(context, p, n, grid.corners) for p, n in zip(places, sizes, strict=True)
        ]
    remaining = [clipped(context, p, n) for p, n in zip(places, sizes, strict=True)]
    shape = known(remaining[0])
    batch = np.broadcast_to(np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1)), shape)
    indices = context.concat([context.constant(batch), *remaining], -1)
    output = context.layer("gatherND", x, indices, layout=SOURCE)
    if grid.padding != "zeros":
        return output
    for place, inside in zip(places, remaining, strict=True):
        there = context.emit("equal", place, inside)
        output = context.multiply(output, there)
    return output
