"""Parts of blobs, and padded blobs, for all frontends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mlferry import limits
from mlferry.converters.convolutions import Pairs, edges
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, known, positive
from mlferry.converters.sizes import use
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import show
from mlferry.numerics.windows import spans_of


def sliced(
    context: Lowering,
    x: Blob,
    starts: Sequence[int | Blob | None],
    ends: Sequence[int | Blob | None],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Blob:
    """Slice with Python's bounds; they are written unchanged, so that they hold for any size."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    full = [slice(None)] * x.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        full[positive(axis, x.rank)] = slice(start, end, step)
    parts = [_part(x, axis, part) for axis, part in enumerate(full)]
    if all(part.whole for part in parts):
        return x
    return context.layer(
        "sliceStatic",
        x,
        layout=SOURCE,
        beginIds=[part.begin or 0 for part in parts],
        beginMasks=[part.begin is None for part in parts],
        endIds=[part.end or 0 for part in parts],
        endMasks=[part.end is None for part in parts],
        strides=[part.step for part in parts],
        squeezeMasks=[],
    )


def sliced_anywhere(
    context: Lowering,
    x: Blob,
    starts: Sequence[Any],
    ends: Sequence[Any],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
    *,
    starts_within: bool = False,
) -> Blob:
    """The same, with bounds that may be computed, and with ends that a flexible axis may not reach.

    Core ML takes such bounds as additional inputs. They are clipped to the axis, as in Python; None
    means its end. To go backward, a flexible axis is reversed first.

    Args:
        axes: the axes; the first ones by default.
        steps: of each axis; 1 by default.
        starts_within: going backward, a start before the axis is its first place, as in ONNX; in
            Python there is nothing.
    """
    axes = list(range(len(starts))) if axes is None else [positive(a, x.rank) for a in axes]
    steps = [1] * len(starts) if steps is None else list(steps)
    starts = [_known_start(n, step) for n, step in zip(starts, steps, strict=True)]
    ends = [_known_end(n, step) for n, step in zip(ends, steps, strict=True)]
    if starts_within:
        starts = [_within(x, *part) for part in zip(starts, steps, axes, strict=True)]
    fixed, moving = [], []
    limited: set[int] = set()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        known = isinstance(start, int) and isinstance(end, int)
        if known and (x.known[axis] is not None or _is_open(start, end, step)):
            fixed.append((start, end, axis, step))
        elif step < 1:
            flags = [place == axis for place in range(x.rank)]
            x = context.layer("reverse", x, layout=SOURCE, reverseDim=flags)
            first, last = _from_end(context, start), _from_end(context, end)
            if first == 0 and isinstance(last, int) and last >= _OPEN and step == -1:
                continue
            if starts_within and not (isinstance(first, int) and first <= 0):
                limited.add(axis)
            moving.append((first, last, axis, -step))
        else:
            moving.append((start, end, axis, step))
    if fixed:
        x = sliced(context, x, *map(list, zip(*fixed, strict=True)))
    if not moving:
        return x
    begin, stop = [0] * x.rank, [0] * x.rank
    open_begin, open_end, stride = [True] * x.rank, [True] * x.rank, [1] * x.rank
    bounds: list[dict[int, int | Blob]] = [{}, {}]
    for start, end, axis, step in moving:
        bounds[0][axis], bounds[1][axis], stride[axis] = start, end, step
        open_begin[axis] = isinstance(start, int) and start == 0
        open_end[axis] = isinstance(end, int) and end >= _OPEN
    shape = context.layer("getShape", x, layout=SOURCE)
    highest = _last_places(context, shape, [axis in limited for axis in range(x.rank)])
    vectors = []
    for computed, unmasked, limit in zip(bounds, (begin, stop), (highest, shape), strict=True):
        parts = [computed.get(axis, value) for axis, value in enumerate(unmasked)]
        blobs = [
            context.constant([float(min(max(p, -_OPEN), _OPEN))]) if isinstance(p, int) else p
            for p in parts
        ]
        joined = context.concat(blobs, 0) if x.rank > 1 else blobs[0]
        vectors.append(_from_front(context, joined, shape, limit))
    output = context.layer(
        "sliceDynamic",
        x,
        *vectors,
        layout=SOURCE,
        beginMasks=open_begin,
        endMasks=open_end,
        strides=stride,
        squeezeMasks=[False] * x.rank,
    )
    left = {axis for _, _, axis, _ in moving}
    remaining = tuple(None if axis in left else n for axis, n in enumerate(x.known))
    context.builder.shapes[output.name] = remaining
    return Blob(output.name, remaining, SOURCE)


def _known_start(bound: int | Blob | None, step: int) -> int | Blob:
    if bound is None:
        return 0 if step > 0 else -1
    return bound


def _known_end(bound: int | Blob | None, step: int) -> int | Blob:
    if bound is None:
        return 2 * _OPEN if step > 0 else -2 * _OPEN
    return bound


def _from_end(context: Lowering, bound: int | Blob) -> int | Blob:
    """A bound of an axis as a bound of the reversed axis."""
    if isinstance(bound, int):
        return -1 - bound
    return context.emit("activation", bound, linear={"alpha": -1.0, "beta": -1.0})


def first_within(start: int, step: int, size: int | None) -> int:
    """A start of ONNX as one of Python: going backward, it is never before the axis."""
    return max(start, -size) if step < 0 and size is not None else start


def _within(x: Blob, start: int | Blob, step: int, axis: int) -> int | Blob:
    """The same; a bound that is computed, and one of a flexible axis, is limited later."""
    if isinstance(start, Blob):
        return start
    within = first_within(start, step, x.known[axis])
    if within != start:
        use(x, [axis])
    return within


def _from_front(context: Lowering, bounds: Blob, shape: Blob, limit: Blob) -> Blob:
    """Bounds counted from the start of each axis, and clipped to 0 and a limit."""
    negative = context.emit("lessThan", bounds, alpha=0.0)
    moved = context.multiply(negative, shape)
    counted = context.add(bounds, moved)
    limited = context.minimum(counted, limit)
    return context.emit("activation", limited, ReLU={})


def _last_places(context: Lowering, shape: Blob, limited: Sequence[bool]) -> Blob:
    """The extents of axes; of some of them, the last place."""
    if not any(limited):
        return shape
    return context.add(shape, context.constant([-float(flag) for flag in limited]))


def _is_open(start: int, end: int, step: int) -> bool:
    """Whether bounds hold for any size of the axis."""
    return step >= 1 and (end < 0 or end >= _OPEN or start >= _OPEN)


def entry(context: Lowering, x: Blob, axis: int, index: int) -> Blob:
    """One entry of an axis, which is dropped; negative indices count from the end, at any size."""
    end = index + 1 or None
    return context.layer(
        "squeeze", sliced(context, x, [index], [end], [axis], None), layout=SOURCE, axes=(axis,)
    )


def shifted(
    context: Lowering,
    x: Blob,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pairs: Pairs,
    filler: float = 0.0,
) -> list[Blob]:
    """A slice of padded data [N, C, *spatial] for each entry of a window.

    Raises:
        LimitError: the window has too many.
    """
    amounts = [0, 0, 0, 0, *(n for pair in pairs for n in pair)]
    if any(amounts):
        x = context.layer("constantPad", x, layout=x.layout, padAmounts=amounts, value=filler)
    limits.check("unrolled", math.prod(kernel), "each entry of a window is a slice; there are:")
    axes = zip(known(x)[2:], spans_of(kernel, dilations), strides, strict=True)
    counts = [(size - span) // stride + 1 for size, span, stride in axes]
    views = []
    for place in np.ndindex(*kernel):
        begins = [int(i) * d for i, d in zip(place, dilations, strict=True)]
        ends = [b + (c - 1) * s + 1 for b, c, s in zip(begins, counts, strides, strict=True)]
        view = sliced(context, x, begins, ends, range(2, x.rank), strides)
        views.append(replace(view, layout=x.layout))
    return views


class _Part(NamedTuple):
    """The part of one axis to keep; None means its end."""

    begin: int | None
    end: int | None
    step: int

    @property
    def whole(self) -> bool:
        """Whether it is the whole axis, in order."""
        return self == (None, None, 1)


_OPEN = 2**30  # exporters write the largest integers for "to the end"


def _part(x: Blob, axis: int, part: slice) -> _Part:
    """Bounds that reach the ends of the axis at every size are left open."""
    shape, size, step = x.known, x.known[axis], part.step or 1
    if size is not None and len(range(*part.indices(size))) == 0:
        raise ConversionError(f"a slice of {shape} without elements")
    least, most = (-_OPEN, _OPEN) if step > 0 else (_OPEN, -_OPEN)  # beyond every axis

    def beyond(bound: int, limit: int) -> bool:
        return bound >= limit if limit > 0 else bound <= limit

    if (part.start is not None and beyond(part.start, most)) or (
        part.stop is not None and beyond(part.stop, least)
    ):
        raise ConversionError(f"a slice [{part.start}:{part.stop}:{step}] without elements")
    first = 0 if step > 0 else -1
    opens = part.start in (first, None) or beyond(part.start, least)
    begin = None if opens else int(part.start)
    end = None if part.stop is None or beyond(part.stop, most) else int(part.stop)
    if size is None and (step < 1 or (end is not None and end >= 0)):
        raise ConversionError(
            f"a slice [{part.start}:{part.stop}:{step}] of axis {axis} of {show(shape)}, which is "
            "flexible: it may be shorter. Give fixed shapes with inputs=[mlferry.TensorType(...)]"
        )
    if size is None:
        return _Part(begin, end, step)
    return _Part(*_inside(x, axis, begin, end, step), step)


def _inside(
    x: Blob, axis: int, begin: int | None, end: int | None, step: int
) -> tuple[int | None, int | None]:
    """Bounds that lie within an axis; of those beyond it, it depends on the size what they are."""
    size = x.known[axis] or 0
    least, most = (-size, size) if step > 0 else (-size - 1, size - 1)
    remaining = []
    for bound in (begin, end):
        beyond = bound is not None and not least < bound < most
        if beyond:
            use(x, [axis])
        remaining.append(None if beyond else bound)
    return remaining[0], remaining[1]


# Core ML's own padding of height and width, at any size.
_PADDINGS: dict[str, dict[str, Any]] = {"reflect": {"reflection": {}}, "edge": {"replication": {}}}


def padded(context: Lowering, x: Blob, amounts: Sequence[int], mode: str, value: float) -> Blob:
    """Negative amounts cut off; what Core ML cannot pad is gathered along each axis."""
    pairs = list(zip(amounts[: x.rank], amounts[x.rank :], strict=True))
    if not any(map(any, pairs)):
        return x
    if mode == "constant":
        if any(n < 0 for pair in pairs for n in pair):
            starts = [max(0, -a) for a, _ in pairs]
            ends = [b if b < 0 else None for _, b in pairs]
            x = sliced(context, x, starts, ends, None, None)
            pairs = [(max(0, a), max(0, b)) for a, b in pairs]
        flat = [n for pair in pairs for n in pair]
        return context.layer("constantPad", x, layout=SOURCE, padAmounts=flat, value=value)
    if mode not in ("reflect", "edge", "wrap", "symmetric"):
        raise ConversionError(f"mode={mode!r}")
    if can_be_padded(x, pairs, mode):
        return _padded_at_any_size(context, x, pairs, mode)
    for axis, (before, after) in enumerate(pairs):
        if not before and not after:
            continue
        size = extent(x, axis)
        places = np.arange(max(0, -before), size - max(0, -after))
        widths = (max(0, before), max(0, after))
        indices = np.pad(places, widths, mode=mode)  # type: ignore[call-overload]
        x = context.gather(x, context.constant(indices), axis)
    return x


def can_be_padded(x: Blob, pairs: Pairs, mode: str) -> bool:
    """Whether Core ML's layer does it, which pads two axes."""
    if mode not in _PADDINGS:
        return False
    padded = [(n, pair) for n, pair in zip(x.known, pairs, strict=True) if any(pair)]
    if x.rank not in (3, 4) or len(padded) > 2 or min(map(min, pairs)) < 0:
        return False
    return mode == "edge" or all(n is None or max(pair) < n for n, pair in padded)


def _padded_at_any_size(context: Lowering, x: Blob, pairs: Pairs, mode: str) -> Blob:
    """The axes that are padded go to the end for it."""
    if x.rank == 3:
        return context.squeeze(
            _padded_at_any_size(context, context.expand(x, 0), [(0, 0), *pairs], mode), 0
        )
    order = sorted(range(4), key=lambda axis: (any(pairs[axis]), axis))
    if not any(map(any, pairs[:2])):
        order = [0, 1, 2, 3]
    is_ordered = order != [0, 1, 2, 3]
    if is_ordered:
        x = context.transpose(x, order)
    amounts = edges([pairs[axis] for axis in order[2:]])
    x = context.layer("padding", x, layout=SOURCE, **_PADDINGS[mode], **amounts)
    if not is_ordered:
        return x
    return context.transpose(x, [order.index(axis) for axis in range(4)])
