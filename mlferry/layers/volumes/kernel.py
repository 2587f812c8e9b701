"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.layers.volumes.definition import (
    convolution3d as convolution_shape,
    custom_edges,
    edges_of,
    pooling3d as pooling_shape,
    spans_of,
    triple,
)
from mlferry.numerics import windows

Triple = tuple[int, int, int]


def _taps(
    kernel_size: Triple, dilation: Triple, stride: Triple, count: Triple
) -> list[tuple[Triple, tuple[Any, ...]]]:
    """Every position in the kernel, with the entries of a volume that it meets."""
    found: list[tuple[Triple, tuple[Any, ...]]] = []
    for i, j, k in itertools.product(*map(range, kernel_size)):
        places = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, s, n in zip((i, j, k), dilation, stride, count, strict=True)
        )
        found.append(((i, j, k), (..., *places)))
    return found


@kernel("convolution3d")
def convolution3d(params: Params, x: Array) -> Array:
    """Weights are [outC, inC / groups, kD, kH, kW], or [inC, outC / groups, kD, kH, kW] of a
    deconvolution.
    """
    shape = convolution_shape(params, x.shape)[0]
    size: Triple = tuple(extent or 0 for extent in shape[2:])  # type: ignore[assignment]
    y = _deconvolve(params, x, size) if params.isDeconvolution else _convolve(params, x, size)
    return y + params.weight("bias", (params.outputChannels, 1, 1, 1)) if params.hasBias else y


def _convolve(params: Params, x: Array, size: Triple) -> Array:
    kernel_size, stride, dilation = (triple(params, f) for f in ("kernel", "stride", "dilation"))
    groups, batch = params.nGroups, x.shape[0]
    weights = params.weight(
        "weights", (params.outputChannels, params.inputChannels // groups, *kernel_size)
    ).reshape(groups, params.outputChannels // groups, -1, *kernel_size)
    edges = edges_of(params, x.shape[2:], spans_of(params))
    x = np.pad(x, [(0, 0), (0, 0), *edges])
    x = x.reshape(batch, groups, -1, *x.shape[2:])
    y = np.empty((batch, groups, params.outputChannels // groups, *size), np.float32)
    matrix = weights.reshape(groups, params.outputChannels // groups, -1)
    columns = np.empty(
        (*x.shape[1:3], *kernel_size, *size[1:]), np.float32
    )  # the windows of one slice of the result
    taps = [n * d for n, d in zip(x.strides[3:], dilation, strict=True)]
    apart = (*x.strides[1:3], *taps, x.strides[4] * stride[1], x.strides[5] * stride[2])
    for sample, place in np.ndindex(batch, size[0]):
        source = x[sample, :, :, place * stride[0] :]
        np.copyto(columns, np.lib.stride_tricks.as_strided(source, columns.shape, apart))
        made = np.matmul(matrix, columns.reshape(groups, matrix.shape[-1], -1))
        y[sample, :, :, place] = made.reshape(groups, -1, *size[1:])
    return y.reshape(batch, params.outputChannels, *size)


def _deconvolve(params: Params, x: Array, size: Triple) -> Array:
    """Each input value adds its scaled kernel; what lies in the padding is cut off.

    With `outputShape` or SAME padding what is too much is cut off on both sides, an odd entry
    at the end.
    """
    kernel_size, stride, dilation = (triple(params, f) for f in ("kernel", "stride", "dilation"))
    groups, batch = params.nGroups, x.shape[0]
    weights = params.weight(
        "weights",
        (params.inputChannels, params.outputChannels // groups, *kernel_size),
        channel_axis=1,
    ).reshape(groups, params.inputChannels // groups, -1, *kernel_size)
    spans = spans_of(params)
    full = [(n - 1) * s + span for n, s, span in zip(x.shape[2:], stride, spans, strict=True)]
    edges = custom_edges(params)
    if params.paddingType == "SAME" or (params.outputShape and not any(map(any, edges))):
        edges = [(max(0, f - n) // 2, 0) for f, n in zip(full, size, strict=True)]
    extent = [max(f, e[0] + n) for f, e, n in zip(full, edges, size, strict=True)]
    y = np.zeros((batch, groups, params.outputChannels // groups, *extent), np.float32)
    x = x.reshape(batch, groups, -1, *x.shape[2:])
    planes, rows, columns = x.shape[3:]
    for (i, j, k), places in _taps(kernel_size, dilation, stride, (planes, rows, columns)):
        y[places] += np.einsum("gco,bgcdhw->bgodhw", weights[..., i, j, k], x, optimize=True)
    depth, height, width = (slice(e[0], e[0] + n) for e, n in zip(edges, size, strict=True))
    return y[..., depth, height, width].reshape(batch, params.outputChannels, *size)


@kernel("pooling3d")
def pooling3d(params: Params, x: Array) -> Array:
    """MAX or AVERAGE; padding never wins a maximum."""
    kernel_size, stride = triple(params, "kernel"), triple(params, "stride")
    if min(kernel_size) < 1:
        raise PredictionError(f"a kernel of {kernel_size}")
    size: Triple = pooling_shape(params, x.shape)[0][2:]  # type: ignore[assignment]
    edges = edges_of(params, x.shape[2:], kernel_size)
    largest = params.type == "MAX"
    filler = -np.inf if largest else 0.0
    source = np.pad(x, [(0, 0), (0, 0), *edges], constant_values=np.float32(filler))
    y = np.full((*x.shape[:2], *size), filler, np.float32)
    combine = np.maximum if largest else np.add
    for _, places in _taps(kernel_size, (1, 1, 1), stride, size):
        combine(y, source[places], out=y)
    if not largest:
        y /= _divisor(params, x, size, edges)
    return y


def _divisor(params: Params, x: Array, size: Triple, edges: list[windows.Edges]) -> Array:
    """How many entries each window counts: all, or with `countExcludePadding` the real ones."""
    kernel_size, stride = triple(params, "kernel"), triple(params, "stride")
    counts = []
    for n, out, k, s, edge in zip(x.shape[2:], size, kernel_size, stride, edges, strict=True):
        starts = np.arange(out) * s - edge[0]
        real = np.minimum(starts + k, n) - np.maximum(starts, 0)
        counts.append(np.maximum(real, 0) if params.countExcludePadding else np.full(out, k))
    depth, height, width = counts
    return np.float32(1) * depth[:, None, None] * height[:, None] * width


@kernel("globalPooling3d")
def global_pooling3d(params: Params, x: Array) -> Array:
    combine = np.max if params.type == "MAX" else np.mean
    return combine(x, axis=(-3, -2, -1), keepdims=True)
