"""Layers that take parts of an array."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, integer, integers, kernel
from mlferry.layers.params import Params
from mlferry.layers.slicing.definition import AXIS_OF_SLICE, classic_slice, indices, static_indices
from mlferry.numerics.shapes import axis_of


@kernel("slice")
def slice_(params: Params, x: Array) -> Array:
    """Along the channels, the height or the width."""
    axis = AXIS_OF_SLICE[params.axis] + x.ndim
    return x[(slice(None),) * axis + (classic_slice(params),)]


@kernel("sliceStatic")
def slice_static(params: Params, x: Array) -> Array:
    return np.atleast_1d(x[static_indices(params, x.ndim)])


@kernel("sliceDynamic")
def slice_dynamic(params: Params, x: Array, *given: Array) -> Array:
    """Parameters replace missing inputs: begin, end, strides, and three kinds of masks."""
    masks = (params.beginMasks, params.endMasks, params.squeezeMasks)
    stored = ((), params.endIds, params.strides, *masks)
    index = indices(x.ndim, *map(integers, given), *stored[len(given) :])
    return np.atleast_1d(x[index])


@kernel("sliceBySize")
def slice_by_size(params: Params, x: Array, begin: Array) -> Array:
    axis, first = axis_of(params.axis, x.ndim), integer(begin, "begin")
    first += x.shape[axis] if first < 0 else 0
    if not 0 <= first <= x.shape[axis] - params.size:
        raise PredictionError(
            f"{params.size} entries from {first} on in an axis of {x.shape[axis]}"
        )
    return x[(slice(None),) * axis + (slice(first, first + params.size),)]


@kernel("slidingWindows")
def sliding_windows(params: Params, x: Array) -> Array:
    """The axis becomes two: windows, and the entries of a window."""
    axis = axis_of(params.axis, x.ndim)
    windows = sliding_window_view(x, params.windowSize, axis=axis)
    chosen = windows[(slice(None),) * axis + (slice(None, None, params.step),)]
    return np.moveaxis(chosen, -1, axis + 1)


@kernel("split")
def split(params: Params, x: Array) -> tuple[Array, ...]:
    """Into equal parts of the channels."""
    return tuple(np.split(x, params.nOutputs, axis=-3))
