"""Gradients of what `numerics` computes: of sums, windows, grids and functions.

Every function takes the gradient with respect to a result and returns the gradient with respect to
an input, in the precision of the arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlferry.numerics.convolution import padded, taps_of, transposed
from mlferry.numerics.functions import erf, sigmoid
from mlferry.numerics.resizing import Grid
from mlferry.numerics.shapes import Array
from mlferry.numerics.windows import Edges

_BLOCK = 1 << 20  # values of unfolded input held at a time
_LINES = 1 << 20  # likewise, if several samples go through one product
_APART = 4  # outputs for each weight of one from which samples are multiplied one by one
_MAPS = 1 << 15  # values of maps pooled at a time, so that they stay in the cache


def reduced_to(gradient: Array, shape: Sequence[int]) -> Array:
    """The gradient of a broadcast array: summed over the axes along which it was repeated."""
    shape = tuple(shape)
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        axis + extra
        for axis, extent in enumerate(shape)
        if extent == 1 and gradient.shape[axis + extra] != 1
    )
    return gradient.sum(axis=axes, keepdims=True).reshape(shape)


def scattered(places: Array, gradient: Array, shape: Sequence[int]) -> Array:
    """Values added up at flat places of an array of this shape; places below 0 are skipped."""
    flat, values = places.reshape(-1), gradient.reshape(-1)
    inside = flat >= 0
    if not inside.all():
        flat, values = flat[inside], values[inside]
    total = np.bincount(flat, values, math.prod(shape))
    return total.astype(gradient.dtype).reshape(tuple(shape))


# ---- windows -----------------------------------------------------------------------------------


def convolved_inputs(
    gradient: Array,
    weights: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    edges: Sequence[Edges],
    size: Sequence[int],
    groups: int,
) -> Array:
    """The gradient of the input of `convolution.convolve`, of which most arguments are.

    Args:
        gradient: [N, outputs, *spatial].
        size: the spatial extents of the input.
    """
    cuts = [start for start, _ in edges]
    each = math.prod(gradient.shape[2:]) * math.prod(weights.shape[1:]) * groups
    count = max(1, _BLOCK // max(1, each))
    parts = [
        transposed(gradient[first : first + count], weights, strides, dilations, cuts, size, groups)
        for first in range(0, len(gradient), count)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def convolved_weights(
    gradient: Array,
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    edges: Sequence[Edges],
    groups: int,
) -> Array:
    """The gradient of the weights of `convolution.convolve`: [outputs, C / groups, *kernel].

    Args:
        gradient: [N, outputs, *spatial].
        kernel: the spatial extents of the weights.
    """
    source = padded(x, edges)
    channels, outputs, size = x.shape[1], gradient.shape[1], gradient.shape[2:]
    taps, places = math.prod(kernel), math.prod(size)
    dtype = np.result_type(gradient, x)
    own = channels // groups * taps
    total = np.zeros((groups, outputs // groups, own), dtype)
    # where the gradient is much larger than the windows, turning it around takes most of the time
    apart = _APART * own <= places
    count = max(1, _LINES // max(1, channels * taps * places))
    for first in range(0, len(x), count):
        part, behind = source[first : first + count], gradient[first : first + count]
        samples = len(part)
        if apart:
            lines = by_sample = np.empty((samples, channels, *kernel, *size), dtype)
        else:
            lines = np.empty((channels, *kernel, samples, *size), dtype)
            by_sample = np.moveaxis(lines, 1 + len(kernel), 0)
        for place, entries in taps_of(kernel, dilations, strides, size):
            at: tuple[Any, ...] = (slice(None), slice(None), *place)
            by_sample[at] = part[entries]
        runs = (samples, places) if apart else (1, samples * places)
        behind = behind if apart else behind.swapaxes(0, 1)
        of_outputs = behind.reshape(runs[0], groups, outputs // groups, runs[1])
        of_inputs = lines.reshape(runs[0], groups, own, runs[1])
        total += np.matmul(of_outputs, of_inputs.swapaxes(-1, -2)).sum(axis=0)
    return total.reshape(outputs, channels // groups, *kernel)


def cut_into(gradient: Array, full: Sequence[int], cuts: Sequence[int]) -> Array:
    """The gradient of an array from which a part was cut out.

    Args:
        gradient: of the part, [N, C, *spatial].
        full: the spatial extents of the array; anything beyond them is dropped.
        cuts: where the part starts.
    """
    wide = np.zeros((*gradient.shape[:2], *full), gradient.dtype)
    sizes = [max(0, min(n, f - c)) for n, f, c in zip(gradient.shape[2:], full, cuts, strict=True)]
    to: tuple[Any, ...] = (..., *(slice(c, c + n) for c, n in zip(cuts, sizes, strict=True)))
    part: tuple[Any, ...] = (..., *(slice(n) for n in sizes))
    wide[to] = gradient[part]
    return wide


def pooled_maximum(
    gradient: Array,
    x: Array,
    y: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    edges: Sequence[Edges],
) -> Array:
    """The gradient of a maximum of windows; it goes to the first of equal values.

    Arguments are those of `convolution.pool`, and the gradient [..., *spatial] of the result.
    """
    inner, size = len(kernel), y.shape[-len(kernel) :]
    outer = x.shape[: x.ndim - inner]
    wide = [n + sum(edge) for n, edge in zip(x.shape[-inner:], edges, strict=True)]
    total = np.zeros((math.prod(outer), *wide), gradient.dtype)
    taps = [entries for _, entries in taps_of(kernel, [1] * inner, strides, size)]
    apart = all(s >= k for s, k in zip(strides, kernel, strict=True))
    flat = [each.reshape(-1, *each.shape[-inner:]) for each in (x, y, gradient)]
    count = max(1, _MAPS // max(1, math.prod(wide)))
    for first in range(0, len(total), count):
        lines = slice(first, first + count)
        source, best, behind = (
            padded(flat[0][lines], edges, -np.inf),
            flat[1][lines],
            flat[2][lines],
        )
        into, left = total[lines], np.empty(best.shape, bool)
        for place, entries in enumerate(taps):
            hit = np.equal(source[entries], best)
            if place:
                np.logical_and(hit, left, out=hit)
            if apart:  # windows do not overlap
                np.multiply(behind, hit, out=into[entries])
            else:
                into[entries] += behind * hit
            if not place:
                np.logical_not(hit, out=left)
            elif place < len(taps) - 1:
                np.logical_xor(left, hit, out=left)
    return _inner(total.reshape(*outer, *wide), x.shape, edges)


def pooled_sum(
    gradient: Array,
    shape: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    edges: Sequence[Edges],
) -> Array:
    """The gradient of sums of windows of an input of a shape; see `pooled_maximum`."""
    wide = [n + sum(edge) for n, edge in zip(shape[-len(edges) :], edges, strict=True)]
    total = np.zeros((*shape[: -len(edges)], *wide), gradient.dtype)
    size = gradient.shape[-len(kernel) :]
    for _, entries in taps_of(kernel, [1] * len(kernel), strides, size):
        total[entries] += gradient
    return _inner(total, shape, edges)


def _inner(total: Array, shape: Sequence[int], edges: Sequence[Edges]) -> Array:
    """Cut off the padding."""
    ends = zip(edges, shape[-len(edges) :], strict=True)
    inner: tuple[Any, ...] = (..., *(slice(start, start + n) for (start, _), n in ends))
    remaining: Array = total[inner]
    return remaining


def interpolated(gradient: Array, shape: Sequence[int], rows: Grid, columns: Grid) -> Array:
    """The gradient of `resizing.interpolate` of an input of a shape."""
    for axis, positions in ((-1, columns), (-2, rows)):
        last = shape[axis] - 1
        clipped = np.clip(positions, 0, last)
        low = np.floor(clipped).astype(int)
        high = np.minimum(low + 1, last)
        weight = (clipped - low).astype(np.float32)
        matrix = np.zeros((len(positions), last + 1), gradient.dtype)
        np.add.at(matrix, (np.arange(len(positions)), low), 1 - weight)
        np.add.at(matrix, (np.arange(len(positions)), high), weight)
        gradient = gradient @ matrix if axis == -1 else np.matmul(matrix.T, gradient)
    return gradient


# ---- functions ---------------------------------------------------------------------------------


def through_softmax(gradient: Array, y: Array, axis: int) -> Array:
    """The gradient of `functions.softmax_along`, from its result."""
    inner = (gradient * y).sum(axis=axis, keepdims=True)
    return y * (gradient - inner)


def normal_density(x: Array) -> Array:
    """The density of the normal distribution."""
    return np.exp(-0.5 * np.square(x)) * np.float32(1 / math.sqrt(2 * math.pi))


def erf_slope(x: Array) -> Array:
    """The derivative of the error function."""
    return np.exp(-np.square(x)) * np.float32(2 / math.sqrt(math.pi))


def gelu_slope(x: Array, mode: str) -> Array:
    """The derivative of `functions.gelu`."""
    if mode == "TANH_APPROXIMATION":
        factor = math.sqrt(2 / math.pi)
        inner = np.tanh(factor * (x + 0.044715 * x**3))
        slope = factor * (1 + 3 * 0.044715 * np.square(x))
        return 0.5 * (1 + inner) + 0.5 * x * (1 - np.square(inner)) * slope
    if mode == "SIGMOID_APPROXIMATION":
        gate = sigmoid(1.702 * x)
        return gate + 1.702 * x * gate * (1 - gate)
    return 0.5 * (1 + erf(x / np.float32(math.sqrt(2)))) + x * normal_density(x)


def first_of(x: Array, y: Array, axes: Sequence[int]) -> Array:
    """A mask of the first value, over some axes, that equals a result with extents of 1 there."""
    hit = x == y
    axes_last = np.moveaxis(hit, axes, range(-len(axes), 0))
    flat = axes_last.reshape(*axes_last.shape[: -len(axes)], -1)
    first = np.zeros_like(flat)
    np.put_along_axis(first, flat.argmax(axis=-1)[..., None], True, axis=-1)
    first &= flat
    return np.moveaxis(first.reshape(axes_last.shape), range(-len(axes), 0), axes)


def centered(
    gradient: Array, x_hat: Array, scale: Array, axes: tuple[int, ...], *, scaled: bool = True
) -> Array:
    """The gradient of (x - mean) * scale, where mean and scale are taken over some axes.

    Args:
        gradient: of the normalized values.
        x_hat: the normalized values.
        scale: one over their standard deviation.
        axes: the axes of mean and deviation.
        scaled: whether the scale depends on the values.
    """
    result = gradient - gradient.mean(axis=axes, keepdims=True)
    if scaled:
        result -= x_hat * (gradient * x_hat).mean(axis=axes, keepdims=True)
    return result * scale
