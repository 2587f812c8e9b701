"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

import numpy as np

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.layers.volumes.definition import (
    convolution3d as convolution_shape,
    edges_of,
    kernel_shape,
    pooling3d as pooling_shape,
    spans_of,
    transposed_sizes,
    triple,
)
from mlferry.numerics import windows
from mlferry.numerics.convolution import convolve, pool, transposed

Ints = tuple[int, ...]
Triple = tuple[int, int, int]


@kernel("convolution3d")
def convolution3d(params: Params, x: Array) -> Array:
    convolution_shape(params, x.shape)
    y = _deconvolve(params, x) if params.isDeconvolution else _convolve(params, x)
    return y + params.weight("bias", (params.outputChannels, 1, 1, 1)) if params.hasBias else y


def _convolve(params: Params, x: Array) -> Array:
    stride, dilation = triple(params, "stride"), triple(params, "dilation")
    edges = edges_of(params, x.shape[2:], spans_of(params))
    weights = params.weight("weights", kernel_shape(params))
    return convolve(x, weights, stride, dilation, edges, params.nGroups)


def _deconvolve(params: Params, x: Array) -> Array:
    stride, dilation = triple(params, "stride"), triple(params, "dilation")
    weights = params.weight("weights", kernel_shape(params), channel_axis=1)
    cuts, _, size = cuts_of(params, x.shape)
    return transposed(x, weights, stride, dilation, cuts, size, params.nGroups)


def cuts_of(params: Params, shape: Ints) -> tuple[list[int], Ints, Ints]:
    """How much to cut off the start of a transposed convolution's full result of an input.

    Also its extents before and after the cut.
    """
    full, size, edges = transposed_sizes(params, shape[2:])
    before, after = (tuple(n or 0 for n in each) for each in (full, size))
    return [start for start, _ in edges], before, after


@kernel("pooling3d")
def pooling3d(params: Params, x: Array) -> Array:
    """MAX or AVERAGE; padding never wins a maximum."""
    kernel_size, stride = triple(params, "kernel"), triple(params, "stride")
    if min(kernel_size) < 1:
        raise PredictionError(f"a kernel of {kernel_size}")
    size: Triple = pooling_shape(params, x.shape)[0][2:]  # type: ignore[assignment] # rank 5
    edges = edges_of(params, x.shape[2:], kernel_size)
    largest = params.type == "MAX"
    combine, filler = (np.maximum, -np.inf) if largest else (np.add, 0.0)
    y = pool(x, kernel_size, stride, edges, size, combine, filler)
    if not largest:
        y /= divisor(params, x.shape[2:], size, edges)
    return y


def divisor(
    params: Params, shape: tuple[int, ...], size: Triple, edges: list[windows.Edges]
) -> Array:
    """How many entries each window counts: all, or with `countExcludePadding` the real ones."""
    kernel_size, stride = triple(params, "kernel"), triple(params, "stride")
    counts = []
    for n, out, k, s, edge in zip(shape, size, kernel_size, stride, edges, strict=True):
        starts = np.arange(out) * s - edge[0]
        real = np.minimum(starts + k, n) - np.maximum(starts, 0)
        counts.append(np.maximum(real, 0) if params.countExcludePadding else np.full(out, k))
    depth, height, width = counts
    return np.float32(1) * depth[:, None, None] * height[:, None] * width


@kernel("globalPooling3d")
def global_pooling3d(params: Params, x: Array) -> Array:
    combine = np.max if params.type == "MAX" else np.mean
    return combine(x, axis=(-3, -2, -1), keepdims=True)
