"""Layers that take parts of an array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.layers.reduction.program import at_least_1d
from mlferry.layers.slicing.definition import (
    AXIS_OF_SLICE,
    Index,
    classic_slice,
    per_axis,
    static_indices,
)
from mlferry.numerics.shapes import axis_of
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value
from mlferry.refusals import refuse

_FARTHEST = np.iinfo(np.int32).max


@as_program("slice")
def slice_(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Along the channels, the height or the width."""
    interval = classic_slice(params)
    return builder.sliced(
        x, AXIS_OF_SLICE[params.axis], interval.start, interval.stop, interval.step
    )


@as_program("sliceStatic")
def slice_static(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    return taken(builder, x, static_indices(params, x.rank))


def taken(builder: ProgramBuilder, x: Value, index: Sequence[Index]) -> Value:
    """As NumPy takes intervals and single entries."""
    parts = [slice(part, part + 1 or None) if isinstance(part, int) else part for part in index]
    single = [isinstance(part, int) for part in index]
    return at_least_1d(builder, builder.part(x, parts, single))


@as_program("sliceDynamic", limits="strides and squeeze masks that are computed")
def slice_dynamic(builder: ProgramBuilder, params: Params, x: Value, *more: Value) -> Value:
    """Parameters replace missing inputs."""
    rank = x.rank
    blobs: list[Value | None] = [*more, *[None] * (6 - len(more))]
    begin, end, strides, begin_masks, end_masks, squeeze_masks = blobs

    def either(blob: Value | None, values: Sequence[int], default: int, subject: str) -> Value:
        if blob is not None:
            return builder.reshape(builder.as_integer(blob), [rank])
        return builder.integers([int(n) for n in per_axis(values, rank, default, subject)])

    starts = either(begin, (), 0, "begins")
    ends = either(end, params.endIds, 0, "ends")
    steps = either(strides, params.strides, 1, "strides")
    masked = either(begin_masks, params.beginMasks, 0, "begin masks")
    default = int(not (end is not None or params.endIds))
    masked_ends = either(end_masks, params.endMasks, default, "end masks")
    squeezed = either(squeeze_masks, params.squeezeMasks, 0, "squeeze masks")
    if not squeezed.is_constant:
        raise refuse("the rank of its result depends on data (squeeze masks as an input)")
    if not steps.is_constant:
        raise refuse("its strides are computed")
    single = squeezed.constant != 0
    forward = steps.constant > 0
    if not masked.is_constant:
        first = builder.integers(np.where(forward, 0, _FARTHEST).tolist())
        starts = builder.where(masked, first, starts)
        masked = builder.integers([0] * rank)
    if not masked_ends.is_constant:
        last = builder.integers(np.where(forward, _FARTHEST, -_FARTHEST).tolist())
        ends = builder.where(masked_ends, last, ends)
        masked_ends = builder.integers([0] * rank)
    y = builder.op(
        "slice_by_index",
        x=x,
        begin=starts,
        end=ends,
        stride=np.where(single, 1, steps.constant).astype(np.int32),
        begin_mask=(masked.constant != 0) & ~single,
        end_mask=(masked_ends.constant != 0) | single,
        squeeze_mask=single if single.any() else None,
    )
    return at_least_1d(builder, y)


@as_program("sliceBySize")
def slice_by_size(builder: ProgramBuilder, params: Params, x: Value, begin: Value) -> Value:
    """From an index on, which may count from the end."""
    axis = axis_of(params.axis, x.rank)
    first = builder.reshape(builder.as_integer(begin), [1])
    extent = builder.vector([builder.extent(x, axis)])
    from_end = builder.binary("add", first, extent)
    first = builder.where(builder.op("less", x=first, y=0), from_end, first)
    return builder.op(
        "slice_by_size",
        x=x,
        begin=builder.vector([first if i == axis else 0 for i in range(x.rank)]),
        size=[params.size if i == axis else -1 for i in range(x.rank)],
    )


@as_program("slidingWindows")
def sliding_windows(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """The axis becomes two: windows, and the entries of a window."""
    return builder.op(
        "sliding_windows",
        x=builder.as_float(x),
        axis=axis_of(params.axis, x.rank),
        size=params.windowSize,
        stride=params.step,
    )
