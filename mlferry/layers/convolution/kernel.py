"""Convolution, transposed convolution and pooling, through matrix products."""

from __future__ import annotations

import numpy as np

from mlferry.errors import SpecError
from mlferry.layers.convolution.definition import (
    deconvolution_edges,
    deconvolution_size,
    edges_of,
    full_size,
    kernel_shape,
    pooling_divisor,
    pooling_size,
)
from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.numerics.convolution import convolve, pool, transposed


@kernel("convolution")
def convolution(
    params: Params, x: Array, weights: Array | None = None, bias: Array | None = None
) -> Array:
    """In a network of version 4 weights may come as an input."""
    outer, maps = x.shape[:-3], x.reshape(-1, *x.shape[-3:])
    if weights is None:
        weights = stored_weights_of(params)
    if bias is None and params.hasBias:
        bias = params.weight("bias", (params.outputChannels,))
    y = (
        _deconvolve(params, maps, weights)
        if params.isDeconvolution
        else _convolve(params, maps, weights)
    )
    if bias is not None:
        y += bias.reshape(-1, 1, 1)
    return y.reshape(*outer, *y.shape[1:])


def stored_weights_of(params: Params) -> Array:
    """The stored weights in their shape; see `kernel_shape`."""
    axis = 1 if params.isDeconvolution else 0
    return params.weight("weights", kernel_shape(params), channel_axis=axis)


def _convolve(params: Params, x: Array, weights: Array) -> Array:
    edges = edges_of(params, x.shape)
    return convolve(x, weights, params.stride, params.dilationFactor, edges, params.nGroups)


def _deconvolve(params: Params, x: Array, weights: Array) -> Array:
    cuts, _, size = cuts_of(params, x.shape)
    return transposed(x, weights, params.stride, params.dilationFactor, cuts, size, params.nGroups)


def cuts_of(
    params: Params, shape: tuple[int, ...]
) -> tuple[list[int], tuple[int, int], tuple[int, int]]:
    """How much to cut off the start of a transposed convolution's full result of an input.

    Also its height and width before and after the cut.
    """
    sizes = (shape[-2], shape[-1])
    full, size = (
        (height or 0, width or 0)
        for height, width in (full_size(params, sizes), deconvolution_size(params, sizes))
    )
    return [start for start, _ in deconvolution_edges(params, full, size)], full, size


@kernel("pooling")
def pooling(params: Params, x: Array) -> Array:
    """MAX, AVERAGE, or L2: the square root of the sum of squares.

    Padding never wins a maximum. With `includeLastPixel` an average divides by the part of the
    window inside the padded input, as in Caffe, which the mode was made for.
    """
    if params.globalPooling:
        return _global_pooling(params, x)
    out, edges = pooling_size(params, x.shape[-2:])
    largest = params.type == "MAX"
    source = np.square(x) if params.type == "L2" else x
    combine, filler = (np.maximum, -np.inf) if largest else (np.add, 0.0)
    y = pool(source, params.kernelSize, params.stride, edges, out, combine, filler)
    if params.type == "L2":
        return np.sqrt(y)
    if params.type == "AVERAGE":
        y /= pooling_divisor(params, x.shape[-2:], out, edges)
    return y


def _global_pooling(params: Params, x: Array) -> Array:
    axes = (-2, -1)
    if params.type == "MAX":
        return x.max(axis=axes, keepdims=True)
    if params.type == "AVERAGE":
        return x.mean(axis=axes, keepdims=True, dtype=x.dtype)
    if params.type == "L2":
        return np.sqrt(np.square(x).sum(axis=axes, keepdims=True))
    raise SpecError(f"pooling type {params.type}")
