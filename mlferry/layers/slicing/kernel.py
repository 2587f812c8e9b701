"""Layers that take parts of an array."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array, integer, integers, kernel
from mlferry.layers.params import Params
from mlferry.layers.slicing.definition import (
    AXIS_OF_SLICE,
    Index,
    classic_slice,
    indices,
    static_indices,
)
from mlferry.numerics.shapes import axis_of


@kernel("slice")
def slice_(p: Params, x: Array) -> Array:
    """Along the channels, the height or the width."""
    axis = AXIS_OF_SLICE[p.axis] + x.ndim
    return x[(slice(None),) * axis + (classic_slice(p),)]


def _take(x: Array, index: tuple[Index, ...]) -> Array:
    return np.atleast_1d(x[index])


@kernel("sliceStatic")
def slice_static(p: Params, x: Array) -> Array:
    return _take(x, static_indices(p, x.ndim))


@kernel("sliceDynamic")
def slice_dynamic(
    p: Params,
    x: Array,
    begin: Array | None = None,
    end: Array | None = None,
    strides: Array | None = None,
    begin_masks: Array | None = None,
    end_masks: Array | None = None,
    squeeze_masks: Array | None = None,
) -> Array:
    """What does not come as an input is that of the parameters."""
    index = indices(
        x.ndim,
        integers(begin) if begin is not None else (),
        integers(end) if end is not None else p.endIds,
        integers(strides) if strides is not None else p.strides,
        integers(begin_masks) if begin_masks is not None else p.beginMasks,
        integers(end_masks) if end_masks is not None else p.endMasks,
        integers(squeeze_masks) if squeeze_masks is not None else p.squeezeMasks,
    )
    return _take(x, index)


@kernel("sliceBySize")
def slice_by_size(p: Params, x: Array, begin: Array) -> Array:
    axis, first = axis_of(p.axis, x.ndim), integer(begin, "begin")
    first += x.shape[axis] if first < 0 else 0
    if not 0 <= first <= x.shape[axis] - p.size:
        raise PredictionError(f"{p.size} entries from {first} on in an axis of {x.shape[axis]}")
    return x[(slice(None),) * axis + (slice(first, first + p.size),)]


@kernel("slidingWindows")
def sliding_windows(p: Params, x: Array) -> Array:
    """The axis becomes two: windows, and the entries of a window."""
    axis = axis_of(p.axis, x.ndim)
    windows = sliding_window_view(x, p.windowSize, axis=axis)
    chosen = windows[(slice(None),) * axis + (slice(None, None, p.step),)]
    return np.moveaxis(chosen, -1, axis + 1)


@kernel("split")
def split(p: Params, x: Array) -> tuple[Array, ...]:
    """Into equal parts of the channels."""
    return tuple(np.split(x, p.nOutputs, axis=-3))
