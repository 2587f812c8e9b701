"""Layers that take parts of an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.layers.exports import op
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
from mlferry.refusals import refuse


@op("slice")
def slice_(emitter: Emitter, params: Params, x: str) -> str:
    """Along the channels, the height or the width."""
    axis = AXIS_OF_SLICE[params.axis] + emitter.rank(x)
    index: list[Index] = [slice(None)] * emitter.rank(x)
    index[axis] = classic_slice(params)
    return _taken(emitter, x, index)


@op("sliceStatic")
def slice_static(emitter: Emitter, params: Params, x: str) -> str:
    return _taken(emitter, x, static_indices(params, emitter.rank(x)))


def _taken(emitter: Emitter, x: str, index: Sequence[Index]) -> str:
    """As NumPy takes intervals and single entries."""
    rows: list[tuple[int, int, int, int]] = []
    single_axes: list[int] = []
    for axis, (part, extent) in enumerate(zip(index, emitter.shape(x), strict=True)):
        if isinstance(part, int):
            single_axes.append(axis)
            rows.append((part, part + 1 if part != -1 else FARTHEST, axis, 1))
            continue
        if part == slice(None) or (extent is not None and part.indices(extent) == (0, extent, 1)):
            continue
        step = 1 if part.step is None else part.step
        ends = (0, FARTHEST) if step > 0 else (FARTHEST, -FARTHEST)
        start = ends[0] if part.start is None else part.start
        rows.append((start, ends[1] if part.stop is None else part.stop, axis, step))
    if rows:
        x = emitter.node(
            "Slice", x, *(emitter.integers(column) for column in zip(*rows, strict=True))
        )
    return _squeezed(emitter, x, index, single_axes)


def _squeezed(emitter: Emitter, x: str, index: Sequence[object], single_axes: list[int]) -> str:
    if not single_axes:
        return x
    if len(single_axes) == len(index):
        return emitter.reshape(x, [1])
    return emitter.squeeze(x, single_axes)


@op("sliceDynamic", limits="squeeze masks that are computed: the rank would depend on data")
def slice_dynamic(emitter: Emitter, params: Params, x: str, *more: str) -> str:
    """Parameters replace missing inputs."""
    rank = emitter.rank(x)
    begin, end, strides, begin_masks, end_masks, squeeze_masks = (*more, *[""] * (6 - len(more)))
    if squeeze_masks and emitter.known(squeeze_masks) is None:
        raise refuse("the rank of its result depends on data (squeeze masks as an input)")

    def either(blob: str, values: Sequence[int], default: int, subject: str) -> str:
        if blob:
            return emitter.whole(blob)
        return emitter.integers([int(n) for n in per_axis(values, rank, default, subject)])

    squeezed = (  # the masks are known, see above
        [bool(n) for n in emitter.known(squeeze_masks).reshape(-1)]  # type: ignore[union-attr]
        if squeeze_masks
        else [bool(n) for n in per_axis(params.squeezeMasks, rank, 0, "squeeze masks")]
    )
    zero, one = emitter.integers([0]), emitter.integers([1])
    starts = either(begin, (), 0, "begins")
    ends = either(end, params.endIds, 0, "ends")
    steps = either(strides, params.strides, 1, "strides")
    masked = either(begin_masks, params.beginMasks, 0, "begin masks")
    default = int(not (end or params.endIds))
    masked_ends = either(end_masks, params.endMasks, default, "end masks")
    backwards = emitter.node("Less", steps, zero)
    far, near = emitter.integers([FARTHEST]), emitter.integers([-FARTHEST])
    first = emitter.node("Where", backwards, far, zero)
    last = emitter.node("Where", backwards, near, far)
    starts_of = emitter.node(
        "Where", emitter.node("Not", emitter.node("Equal", masked, zero)), first, starts
    )
    ends_of = emitter.node(
        "Where", emitter.node("Not", emitter.node("Equal", masked_ends, zero)), last, ends
    )
    if any(squeezed):
        single = emitter.constant(np.array(squeezed))
        after = emitter.node("Add", starts, one)
        after = emitter.node("Where", emitter.node("Equal", after, zero), far, after)
        starts_of = emitter.node("Where", single, starts, starts_of)
        ends_of = emitter.node("Where", single, after, ends_of)
        steps = emitter.node("Where", single, one, steps)
    y = emitter.node("Slice", x, starts_of, ends_of, emitter.integers(range(rank)), steps)
    single_axes = [axis for axis, flag in enumerate(squeezed) if flag]
    return _squeezed(emitter, y, squeezed, single_axes)


@op("sliceBySize")
def slice_by_size(emitter: Emitter, params: Params, x: str, begin: str) -> str:
    """An interval beyond the axis is an error of `Gather`, as it should be."""
    axis = axis_of(params.axis, emitter.rank(x))
    first, zero = emitter.reshape(emitter.whole(begin), [1]), emitter.integers([0])
    extent = emitter.vector([emitter.extent(x, axis)])
    first = emitter.node(
        "Where", emitter.node("Less", first, zero), emitter.node("Add", first, extent), first
    )
    first = emitter.node("Where", emitter.node("Less", first, zero), extent, first)
    places = emitter.node("Add", first, emitter.integers(range(params.size)))
    return emitter.node("Gather", x, places, axis=axis)


@op("slidingWindows")
def sliding_windows(emitter: Emitter, params: Params, x: str) -> str:
    """The axis becomes two: windows, and the entries of a window."""
    axis = axis_of(params.axis, emitter.rank(x))
    extent = emitter.extent(x, axis)
    inside = emitter.integers(range(params.windowSize))
    if isinstance(extent, int):
        count = (extent - params.windowSize) // params.step + 1
        starts = emitter.integers(range(0, count * params.step, params.step))
    else:
        last = emitter.node("Sub", extent, emitter.integers([params.windowSize - 1]))
        starts = emitter.count_up(last, params.step)
    places = emitter.node("Add", emitter.expand(starts, [1]), inside)
    return emitter.node("Gather", x, places, axis=axis)
