"""Convolution, transposed convolution and pooling of arrays, through matrix products.

Arrays are [N, C, *spatial], of one to three spatial axes; kernels are
[outputs, C / groups, *kernel], of transposed convolutions [C, outputs / groups, *kernel].
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mlferry.compiled import is_active, packs
from mlferry.lanes import in_parts
from mlferry.numerics.shapes import Array
from mlferry.numerics.windows import Edges, slide

_WORTH_PACKING = 32  # pixels of a result from which compiled products pay for packing the weights
_BLOCK = 1 << 22  # float32 values of unfolded input that are held at a time


def floats(*arrays: Array) -> Any:
    """The type of results: float32, or float64 if one of the arrays has it."""
    return np.float64 if any(array.dtype == np.float64 for array in arrays) else np.float32


def padded(x: Array, edges: Sequence[Edges], value: float = 0.0) -> Array:
    """`x` with its last axes padded by a constant."""
    if not any(map(any, edges)):
        return x
    widths = [(0, 0)] * (x.ndim - len(edges)) + list(edges)
    return np.pad(x, widths, constant_values=np.float32(value))


def convolve(
    x: Array,
    weights: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    edges: Sequence[Edges],
    groups: int,
) -> Array:
    """A convolution, without a bias.

    Args:
        x: [N, C, *spatial].
        weights: [outputs, C / groups, *kernel].
        strides: one per spatial axis.
        dilations: likewise.
        edges: the padding of each spatial axis.
    """
    if x.ndim == 3:
        y = convolve(
            x[:, :, None],
            weights[:, :, None],
            (1, *strides),
            (1, *dilations),
            ((0, 0), *edges),
            groups,
        )
        return y[:, :, 0]
    x = padded(x, edges)
    size = tuple(
        slide(extent, (k - 1) * d + 1, s, (0, 0)) or 0
        for extent, k, s, d in zip(x.shape[2:], weights.shape[2:], strides, dilations, strict=True)
    )
    if x.ndim == 4 and groups == x.shape[1] and weights.shape[1] == 1 and groups > 1:
        return _depthwise(x, weights, strides, dilations, size)
    return (_flat if x.ndim == 4 else _deep)(x, weights, strides, dilations, size, groups)


def _flat(
    x: Array,
    weights: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    size: Sequence[int],
    groups: int,
) -> Array:
    count, channels = x.shape[:2]
    if groups == 1 and _is_compiled(x, weights, size):
        from mlferry.compiled.products import convolved

        return convolved(x, weights, strides, dilations, size)
    out_channels, kernel = weights.shape[0], weights.shape[2:]
    out_h, out_w = size
    taps = kernel[0] * kernel[1]
    matrix = weights.reshape(groups, out_channels // groups, -1)
    y = np.empty((count, groups, out_channels // groups, out_h, out_w), floats(x, weights))
    if taps == 1 and tuple(strides) == (1, 1):
        columns = x.reshape(count, groups, channels // groups, out_h * out_w)
        np.matmul(matrix, columns, out=y.reshape(count, groups, -1, out_h * out_w))
        return y.reshape(count, out_channels, out_h, out_w)
    rows = max(1, min(out_h, _BLOCK // max(1, channels * taps * out_w)))
    for sample in range(count):
        for top in range(0, out_h, rows):
            part = min(rows, out_h - top)
            windowed = _unfold(x[sample], kernel, strides, dilations, (top, part, out_w))
            product = np.matmul(matrix, windowed.reshape(groups, -1, part * out_w))
            y[sample, :, :, top : top + part] = product.reshape(groups, -1, part, out_w)
    return y.reshape(count, out_channels, out_h, out_w)


def _is_compiled(x: Array, weights: Array, size: Sequence[int]) -> bool:
    """Whether a compiled product is faster, although it packs the weights for one call."""
    single = x.dtype == weights.dtype == np.float32
    return (
        single and size[0] * size[1] >= _WORTH_PACKING and bool(x.size) and packs(x, weights.size)
    )


def _unfold(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    rows: tuple[int, int, int],
) -> Array:
    """The windows of some output rows of one sample as [C, kH, kW, rows, width]."""
    top, part, out_w = rows
    columns = np.empty((x.shape[0], *kernel, part, out_w), floats(x))
    for i in range(kernel[0]):
        first = top * strides[0] + i * dilations[0]
        lines = slice(first, first + (part - 1) * strides[0] + 1, strides[0])
        for j in range(kernel[1]):
            left = j * dilations[1]
            cells = slice(left, left + (out_w - 1) * strides[1] + 1, strides[1])
            columns[:, i, j] = x[:, lines, cells]
    return columns


def _depthwise(
    x: Array, weights: Array, strides: Sequence[int], dilations: Sequence[int], size: Sequence[int]
) -> Array:
    if x.dtype == weights.dtype == np.float32 and _slides(x, strides):
        from mlferry.compiled.sliding import WEIGHTED, slide

        result = np.empty((x.shape[0], weights.shape[0], *size), np.float32)
        matrix = np.ascontiguousarray(weights.reshape(weights.shape[0], -1))
        window = weights.shape[2:], strides, dilations, (0, 0)
        slide(WEIGHTED, _planes(x), matrix, *window, _planes(result))
        return result
    multiplier = weights.shape[0] // x.shape[1]
    taps = weights.reshape(x.shape[1], multiplier, *weights.shape[2:])
    y = np.zeros((x.shape[0], x.shape[1], multiplier, *size), floats(x, weights))
    for (i, j), (_, lines, cells) in taps_of(taps.shape[2:], dilations, strides, size):
        y += x[:, :, None, lines, cells] * taps[:, :, i, j, None, None]
    return y.reshape(x.shape[0], -1, *size)


def _slides(x: Array, strides: Sequence[int]) -> bool:
    """Whether the compiled functions of windows take a stride of maps [N, C, H, W]."""
    if not (is_active() and x.dtype == np.float32 and x.size):
        return False
    from mlferry.compiled.sliding import STRIDES

    return strides[1] in STRIDES


def _planes(x: Array) -> Array:
    return np.ascontiguousarray(x).reshape(-1, *x.shape[-2:])


def _deep(
    x: Array,
    weights: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    size: Sequence[int],
    groups: int,
) -> Array:
    batch, outputs, kernel = x.shape[0], weights.shape[0], weights.shape[2:]
    x = x.reshape(batch, groups, -1, *x.shape[2:])
    y = np.empty((batch, groups, outputs // groups, *size), floats(x, weights))
    matrix = weights.reshape(groups, outputs // groups, -1)
    taps = [n * d for n, d in zip(x.strides[3:], dilations, strict=True)]
    apart = (*x.strides[1:3], *taps, x.strides[4] * strides[1], x.strides[5] * strides[2])

    def work(part: slice) -> None:
        # the windows of one slice of the result
        columns = np.empty((*x.shape[1:3], *kernel, *size[1:]), floats(x))
        for sample, place in itertools.product(range(batch), range(*part.indices(size[0]))):
            source = x[sample, :, :, place * strides[0] :]
            np.copyto(columns, np.lib.stride_tricks.as_strided(source, columns.shape, apart))
            result = np.matmul(matrix, columns.reshape(groups, matrix.shape[-1], -1))
            y[sample, :, :, place] = result.reshape(groups, -1, *size[1:])

    in_parts(work, size[0], y.size * matrix.shape[-1])
    return y.reshape(batch, outputs, *size)


def taps_of(
    kernel: Sequence[int], dilations: Sequence[int], strides: Sequence[int], count: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """Every position in a kernel, with the entries of the last axes to which it applies."""
    for place in itertools.product(*map(range, kernel)):
        entries = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip(place, dilations, strides, count, strict=True)
        )
        yield place, (..., *entries)


def spread_out(x: Array, width: int) -> Array:
    """Maps [N, C, H, W], each as one line, with zeros between their lines as in wider maps."""
    if x.shape[3] == width:
        return x.reshape(*x.shape[:2], -1)
    wide = np.zeros((*x.shape[:3], width), x.dtype)
    wide[..., : x.shape[3]] = x
    length = (x.shape[2] - 1) * width + x.shape[3]
    return wide.reshape(*x.shape[:2], -1)[..., :length]


def transposed(
    x: Array,
    weights: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    cuts: Sequence[int],
    size: Sequence[int],
    groups: int,
) -> Array:
    """A transposed convolution: each value adds its scaled kernel to the result.

    Args:
        x: [N, C, *spatial].
        weights: [C, outputs / groups, *kernel].
        strides: one per spatial axis, as are dilations.
        cuts: how much of the full result is cut off at the start of each axis.
        size: the extents that remain; beyond the full result there are zeros.
    """
    count, channels, spatial, kernel = x.shape[0], x.shape[1], x.shape[2:], weights.shape[2:]
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(spatial, strides, kernel, dilations, strict=True)
    ]
    matrix = weights.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    extent = [max(f, front + n) for f, front, n in zip(full, cuts, size, strict=True)]
    y = np.zeros((count, weights.shape[1] * groups, *extent), floats(x, weights))
    along = len(kernel) == 2 and set(strides) == {1}
    rows = spread_out(x, extent[-1]) if along else x
    scaled = np.matmul(matrix, rows.reshape(count, groups, channels // groups, -1))
    if along:  # maps are processed line by line, in long runs instead of short ones
        flat, scaled = (
            y.reshape(count, y.shape[1], -1),
            scaled.reshape(count, -1, *kernel, rows.shape[-1]),
        )
        for i, j in np.ndindex(*kernel):
            start = i * dilations[0] * extent[1] + j * dilations[1]
            flat[:, :, start : start + rows.shape[-1]] += scaled[:, :, i, j]
    else:
        scaled = scaled.reshape(count, -1, *kernel, *spatial)
        for place, entries in taps_of(kernel, dilations, strides, spatial):
            tap: tuple[Any, ...] = (slice(None), slice(None), *place)
            y[entries] += scaled[tap]
    left = tuple(slice(front, front + n) for front, n in zip(cuts, size, strict=True))
    rest: tuple[Any, ...] = (..., *left)
    remaining: Array = y[rest]
    return remaining


def pool(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    edges: Sequence[Edges],
    size: Sequence[int],
    combine: Callable[..., Any],
    filler: float,
) -> Array:
    """The values in each window, combined.

    Args:
        x: [..., *spatial].
        strides: one per spatial axis, as is the padding in `edges`.
        size: the number of windows.
        combine: np.maximum, np.add.
        filler: the value of the padding, and of an empty window.
    """
    functions: dict[Any, float] = {np.add: 0.0, np.maximum: -np.inf}
    if len(kernel) == 2 and functions.get(combine) == filler and _slides(x, strides):
        from mlferry.compiled.sliding import LARGEST, SUM, slide

        result = np.empty((*x.shape[:-2], *size), np.float32)
        window = kernel, strides, (1, 1), [front for front, _ in edges]
        function = SUM if combine is np.add else LARGEST
        slide(function, _planes(x), None, *window, _planes(result))
        return result
    source = padded(x, edges, filler)
    y = np.full((*x.shape[: x.ndim - len(kernel)], *size), filler, floats(x))
    for _, entries in taps_of(kernel, [1] * len(kernel), strides, size):
        combine(y, source[entries], out=y)
    return y
