"""Layers that take parts of an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.layers.exports import op, refuse
from mlferry.layers.params import Params
from mlferry.layers.slicing.definition import (
    AXIS_OF_SLICE,
    Index,
    classic_slice,
    per_axis,
    static_indices,
)
from mlferry.numerics.shapes import axis_of
from mlferry.onnx_graph.emitter import FARTHEST, Emitter


@op("slice")
def slice_(e: Emitter, p: Params, x: str) -> str:
    """Along the channels, the height or the width."""
    axis = AXIS_OF_SLICE[p.axis] + e.rank(x)
    index: list[Index] = [slice(None)] * e.rank(x)
    index[axis] = classic_slice(p)
    return _taken(e, x, index)


@op("sliceStatic")
def slice_static(e: Emitter, p: Params, x: str) -> str:
    return _taken(e, x, static_indices(p, e.rank(x)))


def _taken(e: Emitter, x: str, index: Sequence[Index]) -> str:
    """As NumPy takes intervals and single entries."""
    rows: list[tuple[int, int, int, int]] = []
    gone: list[int] = []
    for axis, (part, extent) in enumerate(zip(index, e.shape(x), strict=True)):
        if isinstance(part, int):
            gone.append(axis)
            rows.append((part, part + 1 if part != -1 else FARTHEST, axis, 1))
            continue
        if part == slice(None) or (extent is not None and part.indices(extent) == (0, extent, 1)):
            continue
        step = 1 if part.step is None else part.step
        ends = (0, FARTHEST) if step > 0 else (FARTHEST, -FARTHEST)
        start = ends[0] if part.start is None else part.start
        rows.append((start, ends[1] if part.stop is None else part.stop, axis, step))
    if rows:
        x = e.node("Slice", x, *(e.integers(column) for column in zip(*rows, strict=True)))
    return _squeezed(e, x, index, gone)


def _squeezed(e: Emitter, x: str, index: Sequence[object], gone: list[int]) -> str:
    if not gone:
        return x
    if len(gone) == len(index):
        return e.reshape(x, [1])
    return e.squeeze(x, gone)


@op("sliceDynamic", limits="squeeze masks that are computed: the rank would depend on data")
def slice_dynamic(e: Emitter, p: Params, x: str, *given: str) -> str:
    """What does not come as an input is that of the parameters."""
    rank = e.rank(x)
    begin, end, strides, begin_masks, end_masks, squeeze_masks = (
        *given, *[""] * (6 - len(given))
    )  # fmt: skip
    if squeeze_masks and e.known(squeeze_masks) is None:
        raise refuse("the rank of its result depends on data (squeeze masks as an input)")

    def either(blob: str, values: Sequence[int], default: int, what: str) -> str:
        if blob:
            return e.whole(blob)
        return e.integers([int(n) for n in per_axis(values, rank, default, what)])

    squeezed = (  # the masks are known: they were asked for above
        [bool(n) for n in e.known(squeeze_masks).reshape(-1)]  # type: ignore[union-attr]
        if squeeze_masks else [bool(n) for n in per_axis(p.squeezeMasks, rank, 0, "squeeze masks")]
    )  # fmt: skip
    zero, one = e.integers([0]), e.integers([1])
    starts = either(begin, (), 0, "begins")
    ends = either(end, p.endIds, 0, "ends")
    steps = either(strides, p.strides, 1, "strides")
    masked = either(begin_masks, p.beginMasks, 0, "begin masks")
    default = int(not (end or p.endIds))
    masked_ends = either(end_masks, p.endMasks, default, "end masks")
    backwards = e.node("Less", steps, zero)
    far, near = e.integers([FARTHEST]), e.integers([-FARTHEST])
    first = e.node("Where", backwards, far, zero)
    last = e.node("Where", backwards, near, far)
    starts_of = e.node("Where", e.node("Not", e.node("Equal", masked, zero)), first, starts)
    ends_of = e.node("Where", e.node("Not", e.node("Equal", masked_ends, zero)), last, ends)
    if any(squeezed):
        single = e.constant(np.array(squeezed))
        after = e.node("Add", starts, one)
        after = e.node("Where", e.node("Equal", after, zero), far, after)
        starts_of = e.node("Where", single, starts, starts_of)
        ends_of = e.node("Where", single, after, ends_of)
        steps = e.node("Where", single, one, steps)
    y = e.node("Slice", x, starts_of, ends_of, e.integers(range(rank)), steps)
    gone = [axis for axis, flag in enumerate(squeezed) if flag]
    return _squeezed(e, y, squeezed, gone)


@op("sliceBySize")
def slice_by_size(e: Emitter, p: Params, x: str, begin: str) -> str:
    """An interval that goes beyond the axis is an error of `Gather`, as it should be."""
    axis = axis_of(p.axis, e.rank(x))
    first, zero = e.reshape(e.whole(begin), [1]), e.integers([0])
    extent = e.vector([e.extent(x, axis)])
    first = e.node("Where", e.node("Less", first, zero), e.node("Add", first, extent), first)
    first = e.node("Where", e.node("Less", first, zero), extent, first)
    places = e.node("Add", first, e.integers(range(p.size)))
    return e.node("Gather", x, places, axis=axis)


@op("slidingWindows")
def sliding_windows(e: Emitter, p: Params, x: str) -> str:
    """The axis becomes two: windows, and the entries of a window."""
    axis = axis_of(p.axis, e.rank(x))
    extent = e.extent(x, axis)
    inside = e.integers(range(p.windowSize))
    if isinstance(extent, int):
        count = (extent - p.windowSize) // p.step + 1
        starts = e.integers(range(0, count * p.step, p.step))
    else:
        last = e.node("Sub", extent, e.integers([p.windowSize - 1]))
        limits = (e.constant(np.int64(0)), e.squeeze(last, [0]), e.constant(np.int64(p.step)))
        starts = e.node("Range", *limits)
        e.shapes[starts] = (None,)
    places = e.node("Add", e.unsqueeze(starts, [1]), inside)
    return e.node("Gather", x, places, axis=axis)
