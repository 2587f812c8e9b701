"""Parts of blobs, and blobs with more around them, for every frontend."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlferry.converters.convolutions import edges
from mlferry.converters.layout import SOURCE, Blob
from mlferry.converters.lower import Lowering
from mlferry.converters.operands import extent, known, positive
from mlferry.errors import ConversionError
from mlferry.spec.shapes.rules import Shape, show


def sliced(low: Lowering, x: Blob, starts: Any, ends: Any, axes: Any, steps: Any) -> Blob:
    """Bounds as Python has them, resolved against the shape."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    shape = x.known
    full = [slice(None)] * x.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        full[positive(axis, x.rank)] = slice(start, end, step)
    parts = [_part(shape, axis, part) for axis, part in enumerate(full)]
    if all(part.whole for part in parts):
        return x
    return low.layer(
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


class _Part(NamedTuple):
    """What is kept of one axis; None is as far as it goes."""

    begin: int | None
    end: int | None
    step: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the axis, in its order."""
        return self == (None, None, 1)


_OPEN = 2**30  # exporters write the largest integers for "to the end"


def _part(shape: Shape, axis: int, part: slice) -> _Part:
    size = shape[axis]
    if part == slice(None):
        return _Part(None, None, 1)
    if size is None:
        return _flexible_part(shape, axis, part)
    begin, end, step = part.indices(size)
    if len(range(begin, end, step)) == 0:
        raise ConversionError(f"a slice of {shape} without elements")
    if (begin, end, step) == (0, size, 1):
        return _Part(None, None, 1)
    return _Part(begin, None if end < 0 else end, step)


def _flexible_part(shape: Shape, axis: int, part: slice) -> _Part:
    """Bounds of a flexible axis stay as they are: negative ones count from its end."""
    begin, end, step = part.start, part.stop, part.step or 1
    begin = None if begin in (0, None) and step > 0 else begin
    end = None if end is None or end >= _OPEN else end
    if step < 1 or (end is not None and end >= 0):
        raise ConversionError(
            f"a slice [{part.start}:{part.stop}:{step}] of axis {axis} of {show(shape)}, which is "
            "flexible: it may be shorter. Give fixed shapes with inputs=[mlferry.TensorType(...)]"
        )
    return _Part(begin, end, step)


# Core ML's own padding of height and width, at any size.
_PADDINGS: dict[str, dict[str, Any]] = {"reflect": {"reflection": {}}, "edge": {"replication": {}}}


def padded(low: Lowering, x: Blob, amounts: Any, mode: str, value: float) -> Blob:
    """Negative amounts cut off; reflections and edges go by gathering along each axis."""
    pairs = list(zip(amounts[: x.rank], amounts[x.rank :], strict=True))
    if not any(map(any, pairs)):
        return x
    if mode == "constant":
        if any(n < 0 for pair in pairs for n in pair):
            starts = [max(0, -a) for a, _ in pairs]
            ends = [n - max(0, -b) for n, (_, b) in zip(known(x), pairs, strict=True)]
            x = sliced(low, x, starts, ends, None, None)
            pairs = [(max(0, a), max(0, b)) for a, b in pairs]
        flat = [n for pair in pairs for n in pair]
        return low.layer("constantPad", x, layout=SOURCE, padAmounts=flat, value=value)
    if mode not in ("reflect", "edge", "wrap", "symmetric"):
        raise ConversionError(f"mode={mode!r}")
    if x.rank == 4 and None in x.known and not any(map(any, pairs[:2])) and mode in _PADDINGS:
        return low.layer("padding", x, layout=SOURCE, **_PADDINGS[mode], **edges(pairs[2:]))
    for axis, (before, after) in enumerate(pairs):
        if not before and not after:
            continue
        size = extent(x, axis)
        places = np.arange(max(0, -before), size - max(0, -after))
        widths = (max(0, before), max(0, after))
        indices = np.pad(places, widths, mode=mode)  # type: ignore[call-overload]
        x = low.layer("gather", x, low.constant(indices), layout=SOURCE, axis=axis)
    return x
