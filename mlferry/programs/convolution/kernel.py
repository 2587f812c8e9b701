"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry import limits
from mlferry.numerics import convolution
from mlferry.programs.convolution.definition import Sliding, slid, sliding, widened
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.types import Entries

Ints = tuple[int, ...]


def _check_padded(x: Array, edges: Sequence[tuple[int, int]]) -> None:
    """Refuse padding that takes too much memory, however small the result is."""
    extents = zip(x.shape[2:], edges, strict=True)
    limits.check_blob((*x.shape[:2], *(n + sum(edge) for n, edge in extents)))


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.ndim - 2))


@kernel("conv")
def conv(
    call: Call,
    x: Array,
    weight: Array,
    bias: Array | None,
    strides: Entries | None,
    pad_type: str,
    pad: Entries | None,
    dilations: Entries | None,
    groups: int,
) -> Array:
    window = sliding(weight.shape[2:], strides, dilations, pad_type, pad)
    edges = window.edges(x.shape[2:])
    _check_padded(x, edges)
    y = convolution.convolve(x, weight, window.strides, window.dilations, edges, groups)
    return _with_bias(y, bias)


@kernel("conv_transpose")
def conv_transpose(
    call: Call,
    x: Array,
    weight: Array,
    bias: Array | None,
    pad: Entries | None,
    output_shape: Entries | None,
    pad_type: str,
    strides: Entries | None,
    dilations: Entries | None,
    groups: int,
) -> Array:
    """Surplus entries are cut off: by the padding, or on both sides, an odd one at the end."""
    window = sliding(weight.shape[2:], strides, dilations, pad_type, pad)
    size = [extent or 0 for extent in widened(window, x.shape[2:])]
    axes = zip(x.shape[2:], window.strides, window.spans, strict=True)
    full = [(n - 1) * stride + span for n, stride, span in axes]
    limits.check_blob((x.shape[0], weight.shape[1] * groups, *full))
    if output_shape is not None:
        size = list(vector(output_shape)[2:])
    cuts = cut_off(window, full, size)
    y = convolution.transposed(x, weight, window.strides, window.dilations, cuts, size, groups)
    return _with_bias(y, bias)


def cut_off(window: Sliding, full: Sequence[int], size: Sequence[int]) -> list[int]:
    """How much of a transposed convolution's full result is cut off at the start of each axis."""
    if window.pad_type == "same_lower":
        return [-(-max(0, f - n) // 2) for f, n in zip(full, size, strict=True)]
    if window.pad_type == "same":
        return [max(0, f - n) // 2 for f, n in zip(full, size, strict=True)]
    return list(window.pads[::2])


def reach_of(window: Sliding, shape: Ints, *, ceil: bool) -> list[tuple[int, int]]:
    """How far the windows of a pool reach beyond an input: its padding, and what rounding adds."""
    size = [extent or 0 for extent in slid(window, shape, ceil=ceil)]
    axes = zip(size, window.strides, window.spans, shape, window.edges(shape), strict=True)
    return [
        (begin, max(end, (n - 1) * stride + span - extent - begin))
        for n, stride, span, extent, (begin, end) in axes
    ]


def counted(window: Sliding, shape: Ints, *, ceil: bool, exclude: bool) -> Array:
    """The number of values in each window of an average; padding counts unless it is excluded."""
    size = [extent or 0 for extent in slid(window, shape, ceil=ceil)]
    reach = reach_of(window, shape, ceil=ceil)
    ones = np.ones(shape, np.float32)
    if not exclude:
        edges = window.edges(shape)
        ones = convolution.padded(ones, edges, 1.0)
        reach = [
            (0, max(0, after - end)) for (_, after), (_, end) in zip(reach, edges, strict=True)
        ]
    return convolution.pool(ones, window.spans, window.strides, reach, size, np.add, 0.0)


@kernel("max_pool", exact=True)
@kernel("avg_pool", "l2_pool")
def pool(
    call: Call,
    x: Array,
    kernel_sizes: Entries,
    strides: Entries | None,
    pad_type: str,
    pad: Entries | None,
    ceil_mode: bool,
    exclude_padding_from_average: bool = False,
) -> Array:
    """Padding is never the maximum."""
    window = sliding(vector(kernel_sizes), strides, None, pad_type, pad)
    shape = x.shape[2:]
    size = [extent or 0 for extent in slid(window, shape, ceil=ceil_mode)]
    reach = reach_of(window, shape, ceil=ceil_mode)
    _check_padded(x, reach)
    largest = call.op == "max_pool"
    combine, filler = (np.maximum, -np.inf) if largest else (np.add, 0.0)
    source = np.square(x) if call.op == "l2_pool" else x
    y = convolution.pool(source, window.spans, window.strides, reach, size, combine, filler)
    if largest:
        return y
    if call.op == "l2_pool":
        return np.sqrt(y)
    return y / counted(window, shape, ceil=ceil_mode, exclude=exclude_padding_from_average)
