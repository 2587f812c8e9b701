"""Parts of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.errors import PredictionError
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.slicing.definition import masked
from mlferry.programs.types import Entries

Index = tuple[int | slice, ...]
Masks = tuple[Entries | None, Entries | None, Entries | None]


def _index(x: Array, begin: Array, end: Array, stride: Entries | None, masks: Masks) -> Index:
    """The index for NumPy, axis by axis."""
    begins, ends = np.ravel(begin).tolist(), np.ravel(end).tolist()
    steps = [1] * x.ndim if stride is None else np.ravel(stride).tolist()
    from_start, to_the_end, single = (masked(mask, x.ndim) for mask in masks)
    index: list[Any] = []
    for axis in range(x.ndim):
        if single[axis]:
            place = int(begins[axis])
            if not -x.shape[axis] <= place < x.shape[axis]:
                raise PredictionError(f"entry {place} of an axis of {x.shape[axis]}")
            index.append(place)
            continue
        first = None if from_start[axis] else int(begins[axis])
        last = None if to_the_end[axis] else int(ends[axis])
        index.append(slice(first, last, int(steps[axis])))
    return tuple(index)


@kernel("slice_by_index", moves=True)
def slice_by_index(
    call: Call,
    x: Array,
    begin: Array,
    end: Array,
    stride: Entries | None,
    begin_mask: Entries | None,
    end_mask: Entries | None,
    squeeze_mask: Entries | None,
) -> Array:
    return x[_index(x, begin, end, stride, (begin_mask, end_mask, squeeze_mask))]


@kernel("slice_update", moves=True)
def slice_update(
    call: Call,
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Entries | None,
    begin_mask: Entries | None,
    end_mask: Entries | None,
    squeeze_mask: Entries | None,
) -> Array:
    y = x.copy()
    y[_index(x, begin, end, stride, (begin_mask, end_mask, squeeze_mask))] = update
    return y


@kernel("slice_by_size", moves=True)
def slice_by_size(call: Call, x: Array, begin: Array, size: Array) -> Array:
    index = []
    for extent, first, count in zip(
        x.shape, np.ravel(begin).tolist(), np.ravel(size).tolist(), strict=True
    ):
        start = first + extent if first < 0 else first
        stop = extent if count == -1 else start + count
        if not 0 <= start <= stop <= extent:
            raise PredictionError(f"{count} entries from {first} on of an axis of {extent}")
        index.append(slice(start, stop))
    return x[tuple(index)]


@kernel("sliding_windows", moves=True)
def sliding_windows(call: Call, x: Array, axis: int, size: int, stride: int) -> Array:
    axis %= x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    windows = windows.take(range(0, windows.shape[axis], stride), axis)
    return np.moveaxis(windows, -1, axis + 1)
