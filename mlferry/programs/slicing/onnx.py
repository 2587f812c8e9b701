"""Parts of arrays."""

from __future__ import annotations

import numpy as np

from mlferry.onnx_graph.emitter import FARTHEST, Emitter
from mlferry.programs.exports import Call, counted, divided, export, values_of
from mlferry.programs.reshaping.definition import vector
from mlferry.programs.slicing.definition import masked
from mlferry.programs.types import Entries

_BEFORE = int(np.iinfo(np.int64).min)
Masks = tuple[Entries | None, Entries | None, Entries | None]


def _sliced(
    emitter: Emitter, x: str, begin: str, end: str, stride: Entries | None, masks: Masks
) -> tuple[str, list[int]]:
    """A part with all of its axes, and the axes of one entry to drop."""
    rank = emitter.rank(x)
    steps = [1] * rank if stride is None else list(vector(stride))
    from_start, to_the_end, single = (masked(mask, rank) for mask in masks)
    starts = [0 if step > 0 else FARTHEST for step in steps]
    stops = [FARTHEST if step > 0 else _BEFORE for step in steps]
    steps = [1 if alone else step for alone, step in zip(single, steps, strict=True)]
    known = values_of(emitter, begin), values_of(emitter, end)
    open_starts = [a and not alone for a, alone in zip(from_start, single, strict=True)]
    axes = range(rank)
    if known[0] is not None:
        first = [starts[i] if open_starts[i] else known[0][i] for i in axes]
        behind = [FARTHEST if n in (-1, FARTHEST) else n + 1 for n in first]
        begins, after = emitter.integers(first), emitter.integers(behind)
    else:
        limits = emitter.reshape(emitter.whole(begin), [rank])
        begins = _chosen(emitter, open_starts, starts, limits)
        one, last = emitter.integers([1]), emitter.integers([-1])
        after = emitter.node("Add", begins, one)
        is_last = emitter.node("Equal", begins, last)
        after = emitter.node("Where", is_last, emitter.integers([FARTHEST]), after)
    if known[1] is not None:
        ends = emitter.integers([stops[i] if to_the_end[i] else known[1][i] for i in axes])
    else:
        limits = emitter.reshape(emitter.whole(end), [rank])
        ends = _chosen(emitter, list(to_the_end), stops, limits)
    if any(single):
        ends = emitter.node("Where", emitter.constant(np.array(single)), after, ends)
    places = emitter.integers(axes)
    y = emitter.node("Slice", x, begins, ends, places, emitter.integers(steps))
    return y, [axis for axis in axes if single[axis]]


def _chosen(emitter: Emitter, flags: list[bool], fixed: list[int], limits: str) -> str:
    if not any(flags):
        return limits
    return emitter.node("Where", emitter.constant(np.array(flags)), emitter.integers(fixed), limits)


@export("slice_by_index", moves=True)
def slice_by_index(
    emitter: Emitter,
    call: Call,
    x: str,
    begin: str,
    end: str,
    stride: Entries | None,
    begin_mask: Entries | None,
    end_mask: Entries | None,
    squeeze_mask: Entries | None,
) -> str:
    y, single_axes = _sliced(emitter, x, begin, end, stride, (begin_mask, end_mask, squeeze_mask))
    return emitter.squeeze(y, single_axes)


@export("slice_update", moves=True)
def slice_update(
    emitter: Emitter,
    call: Call,
    x: str,
    update: str,
    begin: str,
    end: str,
    stride: Entries | None,
    begin_mask: Entries | None,
    end_mask: Entries | None,
    squeeze_mask: Entries | None,
) -> str:
    """The update is written to the places of the slice in x, taken as a vector."""
    shape = emitter.shape_vector(x)
    count = emitter.node("ReduceProd", shape, emitter.integers([0]), keepdims=1)
    places = emitter.node("Reshape", counted(emitter, count), shape)
    emitter.shapes[places] = emitter.shape(x)
    part, single_axes = _sliced(
        emitter, places, begin, end, stride, (begin_mask, end_mask, squeeze_mask)
    )
    part = emitter.squeeze(part, single_axes)
    values = emitter.node("Expand", update, emitter.node("Shape", part))
    flat = emitter.integers([-1])
    y = emitter.node(
        "ScatterND",
        emitter.node("Reshape", x, flat),
        emitter.node("Reshape", part, emitter.integers([-1, 1])),
        emitter.node("Reshape", values, flat),
    )
    return emitter.node("Reshape", y, shape)


@export("slice_by_size", moves=True)
def slice_by_size(emitter: Emitter, call: Call, x: str, begin: str, size: str) -> str:
    """-1 means the rest."""
    rank = emitter.rank(x)
    axes, farthest = emitter.integers(range(rank)), emitter.integers([FARTHEST])
    first, counts = values_of(emitter, begin), values_of(emitter, size)
    zero = emitter.integers([0])
    if first is not None and min(first, default=0) >= 0:
        begins = emitter.integers(first)
    else:
        starts = emitter.reshape(emitter.whole(begin), [rank])
        from_end = emitter.node("Add", starts, emitter.shape_vector(x))
        begins = emitter.node("Where", emitter.node("Less", starts, zero), from_end, starts)
    if first is not None and counts is not None and min(first, default=0) >= 0:
        pairs = zip(first, counts, strict=True)
        ends = emitter.integers([FARTHEST if n == -1 else b + n for b, n in pairs])
    else:
        lengths = emitter.reshape(emitter.whole(size), [rank])
        ends = emitter.node("Add", begins, lengths)
        ends = emitter.node("Where", emitter.node("Less", lengths, zero), farthest, ends)
    return emitter.node("Slice", x, begins, ends, axes)


@export("sliding_windows", moves=True)
def sliding_windows(emitter: Emitter, call: Call, x: str, axis: int, size: int, stride: int) -> str:
    extent = emitter.extent(x, axis)
    inside = np.arange(size)
    if isinstance(extent, int):
        starts = np.arange((extent - size) // stride + 1) * stride
        places = emitter.constant((starts[:, None] + inside).astype(np.int64))
    else:
        room = emitter.node("Sub", extent, emitter.integers([size - stride]))
        steps = counted(emitter, divided(emitter, room, stride))
        steps = emitter.expand(emitter.node("Mul", steps, emitter.integers([stride])), [-1])
        places = emitter.node("Add", steps, emitter.constant(inside.astype(np.int64)))
    return emitter.node("Gather", x, places, axis=axis)
