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


def _taps(kernel_size: Triple, dilation: Triple, stride: Triple, count: Triple) -> list[
    tuple[Triple, tuple[Any, ...]]
]:  # fmt: skip
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
def convolution3d(p: Params, x: Array) -> Array:
    """Weights are [outC, inC / groups, kD, kH, kW], or [inC, outC / groups, kD, kH, kW] of a
    deconvolution.
    """
    shape = convolution_shape(p, x.shape)[0]
    size: Triple = tuple(extent or 0 for extent in shape[2:])  # type: ignore[assignment]
    y = _deconvolve(p, x, size) if p.isDeconvolution else _convolve(p, x, size)
    return y + p.weight("bias", (p.outputChannels, 1, 1, 1)) if p.hasBias else y


def _convolve(p: Params, x: Array, size: Triple) -> Array:
    kernel_size, stride, dilation = (triple(p, f) for f in ("kernel", "stride", "dilation"))
    groups, batch = p.nGroups, x.shape[0]
    weights = p.weight(
        "weights", (p.outputChannels, p.inputChannels // groups, *kernel_size)
    ).reshape(groups, p.outputChannels // groups, -1, *kernel_size)
    edges = edges_of(p, x.shape[2:], spans_of(p))
    x = np.pad(x, [(0, 0), (0, 0), *edges])
    x = x.reshape(batch, groups, -1, *x.shape[2:])
    y = np.empty((batch, groups, p.outputChannels // groups, *size), np.float32)
    matrix = weights.reshape(groups, p.outputChannels // groups, -1)
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
    return y.reshape(batch, p.outputChannels, *size)


def _deconvolve(p: Params, x: Array, size: Triple) -> Array:
    """Each input value adds its scaled kernel; what lies in the padding is cut off.

    With `outputShape` or SAME padding what is too much is cut off on both sides, an odd entry
    at the end.
    """
    kernel_size, stride, dilation = (triple(p, f) for f in ("kernel", "stride", "dilation"))
    groups, batch = p.nGroups, x.shape[0]
    weights = p.weight(
        "weights", (p.inputChannels, p.outputChannels // groups, *kernel_size), channel_axis=1
    ).reshape(groups, p.inputChannels // groups, -1, *kernel_size)
    spans = spans_of(p)
    full = [(n - 1) * s + span for n, s, span in zip(x.shape[2:], stride, spans, strict=True)]
    edges = custom_edges(p)
    if p.paddingType == "SAME" or (p.outputShape and not any(map(any, edges))):
        edges = [(max(0, f - n) // 2, 0) for f, n in zip(full, size, strict=True)]
    extent = [max(f, e[0] + n) for f, e, n in zip(full, edges, size, strict=True)]
    y = np.zeros((batch, groups, p.outputChannels // groups, *extent), np.float32)
    x = x.reshape(batch, groups, -1, *x.shape[2:])
    planes, rows, columns = x.shape[3:]
    for (i, j, k), places in _taps(kernel_size, dilation, stride, (planes, rows, columns)):
        y[places] += np.einsum("gco,bgcdhw->bgodhw", weights[..., i, j, k], x, optimize=True)
    depth, height, width = (slice(e[0], e[0] + n) for e, n in zip(edges, size, strict=True))
    return y[..., depth, height, width].reshape(batch, p.outputChannels, *size)


@kernel("pooling3d")
def pooling3d(p: Params, x: Array) -> Array:
    """MAX or AVERAGE; padding never wins a maximum."""
    kernel_size, stride = triple(p, "kernel"), triple(p, "stride")
    if min(kernel_size) < 1:
        raise PredictionError(f"a kernel of {kernel_size}")
    size: Triple = pooling_shape(p, x.shape)[0][2:]  # type: ignore[assignment]
    edges = edges_of(p, x.shape[2:], kernel_size)
    largest = p.type == "MAX"
    filler = -np.inf if largest else 0.0
    source = np.pad(x, [(0, 0), (0, 0), *edges], constant_values=np.float32(filler))
    y = np.full((*x.shape[:2], *size), filler, np.float32)
    combine = np.maximum if largest else np.add
    for _, places in _taps(kernel_size, (1, 1, 1), stride, size):
        combine(y, source[places], out=y)
    if not largest:
        y /= _divisor(p, x, size, edges)
    return y


def _divisor(p: Params, x: Array, size: Triple, edges: list[windows.Edges]) -> Array:
    """How many entries each window counts: all, or with `countExcludePadding` the real ones."""
    kernel_size, stride = triple(p, "kernel"), triple(p, "stride")
    counts = []
    for n, out, k, s, edge in zip(x.shape[2:], size, kernel_size, stride, edges, strict=True):
        starts = np.arange(out) * s - edge[0]
        real = np.minimum(starts + k, n) - np.maximum(starts, 0)
        counts.append(np.maximum(real, 0) if p.countExcludePadding else np.full(out, k))
    depth, height, width = counts
    return np.float32(1) * depth[:, None, None] * height[:, None] * width


@kernel("globalPooling3d")
def global_pooling3d(p: Params, x: Array) -> Array:
    combine = np.max if p.type == "MAX" else np.mean
    return combine(x, axis=(-3, -2, -1), keepdims=True)
