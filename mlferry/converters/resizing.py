"""Resizing for all frontends: Core ML's own upsampling, gathering, or a matrix for each axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import known
from mlferry.converters.sizes import use
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

Positions = Callable[[int, int, int, float], Array]


@dataclass(frozen=True)
class Sampling:
    """How the values of a resized blob are computed.

    Attributes:
        mode: "nearest", "linear" or "cubic".
        positions: returns the sample positions of an axis, in entries of the input, from the axis,
            its extent, the new one and their ratio.
        rounding: of positions, for "nearest".
        repeats: whether "nearest" by a whole factor repeats each entry.
        half_pixel: whether positions are ``(i + 0.5) / factor - 0.5``.
        cubic: Keys's parameter.
        exclude_outside: whether weights of entries outside are left out rather than the edge's.
        steps: of the distances that a cubic kernel is tabulated at; by default it is exact.
        antialias: whether the kernel is stretched where the result is smaller.
    """

    mode: str
    positions: Positions
    rounding: Callable[[Any], Any] = np.floor
    repeats: bool = False
    half_pixel: bool = False
    cubic: float = -0.75
    exclude_outside: bool = False
    steps: int = 0
    antialias: bool = False


def scaled(x: Blob, factors: Sequence[float]) -> list[int | None]:
    """The extents of a blob times factors, rounded down; in float32, as runtimes compute them."""
    pairs = zip(x.known, factors, strict=True)
    return [None if n is None else math.floor(np.float32(n) * np.float32(f)) for n, f in pairs]


def resize(
    context: Lowering,
    x: Blob,
    target: Sequence[int | None],
    factors: Sequence[float],
    sampling: Sampling,
) -> Blob:
    """Resize a blob axis by axis.

    Args:
        x: the blob; axes are its own.
        target: the new extents.
        factors: the new extents over the old ones, as the source computes them.
        sampling: the positions of samples, and their weights.

    Raises:
        ConversionError: the result has no elements, or positions depend on a flexible size.
    """
    if any(n is not None and n < 1 for n in target):
        raise ConversionError(f"a resize to {list(target)}")
    whole = _by_whole_factors(context, x, factors, sampling)
    if whole is not None:
        return whole
    for axis, (size, out, factor) in enumerate(zip(x.known, target, factors, strict=True)):
        if size is None or out is None:
            if factor != 1:
                known(x)  # the positions depend on the size
            continue
        context.compute(8 * out * (1 if sampling.mode == "nearest" else size))
        positions = sampling.positions(axis, size, out, factor)
        if size == out and np.array_equal(positions, np.arange(size)):
            continue
        use(x, [axis])
        if sampling.mode == "nearest":
            places = np.clip(sampling.rounding(positions), 0, size - 1)
            x = context.layer("gather", x, context.constant(places), layout=x.layout, axis=axis)
        else:
            x = along(context, x, axis, matrix(size, positions, factor, sampling))
    return x


def _by_whole_factors(
    context: Lowering, x: Blob, factors: Sequence[float], sampling: Sampling
) -> Blob | None:
    """Core ML's own upsampling of height and width, at any size, if it computes the same.

    Its half-pixel grid needs iOS 14, so known sizes are resized with matrices.
    """
    if not by_whole_factors(x, factors, sampling):
        return None
    height, width = factors[-2:]
    nearest = sampling.mode == "nearest"
    mode = (
        {"mode": "NN"}
        if nearest
        else {"mode": "BILINEAR", "linearUpsampleMode": "ALIGN_CORNERS_FALSE"}
    )
    return context.layer(
        "upsample", x, layout=x.layout, scalingFactor=(int(height), int(width)), **mode
    )


def by_whole_factors(x: Blob, factors: Sequence[float], sampling: Sampling) -> bool:
    """Whether Core ML's own upsampling computes it."""
    *outer, height, width = factors
    if x.rank != 4 or set(outer) != {1.0} or height % 1 or width % 1 or min(height, width) < 1:
        return False
    nearest = sampling.mode == "nearest" and sampling.repeats
    smooth = sampling.mode == "linear" and sampling.half_pixel and not sampling.antialias
    return nearest or (smooth and None in x.known)


def along(context: Lowering, x: Blob, axis: int, weights: Array | Blob) -> Blob:
    """Multiply one axis by a matrix [new, old]."""
    rank, layout = x.rank, x.layout
    constant = weights if isinstance(weights, Blob) else context.constant(weights)
    if axis == rank - 2:
        return context.layer("batchedMatmul", constant, x, layout=layout)
    if axis == rank - 1:
        return context.layer("batchedMatmul", x, constant, layout=layout, transposeB=True)
    order = [i for i in range(rank) if i != axis] + [axis]
    ordered = context.layer("transpose", x, layout=layout, axes=order)
    output = context.layer("batchedMatmul", ordered, constant, layout=layout, transposeB=True)
    back = [order.index(i) for i in range(rank)]
    return context.layer("transpose", output, layout=layout, axes=back)


def matrix(size: int, positions: Array, factor: float, sampling: Sampling) -> Array:
    """[out, size]: the weights of linear or cubic interpolation; edges repeat."""
    if sampling.mode not in ("linear", "cubic"):
        raise ConversionError(f"mode={sampling.mode!r}")
    stretch = min(factor, 1.0) if sampling.antialias else 1.0
    linear = sampling.mode == "linear"
    radius = (1 if linear else 2) / stretch
    output = np.zeros((len(positions), size))
    for row, position in enumerate(positions):
        first = math.ceil(position - radius)
        places = np.arange(first, math.floor(position + radius) + 1)
        distance = np.abs(places - position) * stretch
        if sampling.steps and not linear:
            distance = np.rint(distance * sampling.steps) / sampling.steps
        weights = np.clip(1 - distance, 0, None) if linear else keys(distance, sampling.cubic)
        if sampling.exclude_outside:
            weights = np.where((places >= 0) & (places < size), weights, 0)
        total = weights.sum()
        weights = weights / total if total else weights
        np.add.at(output[row], np.clip(places, 0, size - 1), weights)
    return output.astype(np.float32)


def keys(x: Array, a: float = -0.5) -> Array:
    """Keys's cubic kernel of distances, which are not negative."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
