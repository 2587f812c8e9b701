"""Pooling, and its inverse for given indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mlferry.converters.convolutions import Pairs, pooled
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.convolution import options, pads_of, windows_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import ints, joined, known
from mlferry.converters.slices import shifted
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError
from mlferry.numerics.convolution import taps_of
from mlferry.numerics.shapes import Array, show
from mlferry.numerics.windows import spans_of

_KINDS = {"MaxPool": "MAX", "AveragePool": "AVERAGE", "LpPool": "L2"}


class PoolingWindow(NamedTuple):
    """The window that pooling moves over its input.

    Attributes:
        kernel: its extents, one for each spatial axis like all that follows.
        strides: the distance between two windows.
        dilations: the distance between two entries of a window.
        pairs: the padding before and after each axis.
        extra: what `ceil_mode` adds to the padding after each axis.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pairs: Pairs
    extra: list[int]

    @property
    def padding(self) -> list[tuple[int, int]]:
        """The padding, including what `ceil_mode` adds."""
        return [(a, b + e) for (a, b), e in zip(self.pairs, self.extra, strict=True)]


@op(*_KINDS)
def pool(context: Lowering, node: Node, x: Blob) -> Blob | tuple[Blob, Blob]:
    """Drops windows of `ceil_mode` that start in the padding at the end."""
    dimensions = x.rank - 2
    kernel = list(node.attrs["kernel_shape"])
    strides, dilations = options(node, dimensions, tuple(kernel))
    column_major = bool(node.attrs.get("storage_order", 0))
    spans = spans_of(kernel, dilations)
    if len(node.outputs) > 1 and node.outputs[1].name:
        pairs = pads_of(node, x, spans, strides)
        extra = _ceil(node, x, spans, strides, pairs)
        window = PoolingWindow(kernel, strides, dilations, pairs, extra)
        return _with_indices(context, x, window, column_major)
    windows = windows_of(node, x, kernel, strides, dilations)
    counts = bool(node.attrs.get("count_include_pad", 0))
    power = node.attrs.get("p", 2)
    own = max(dilations) == 1 and power == 2
    same = windows.same if own else ""
    pairs = list(windows.pairs) if same == windows.same else list(pads_of(node, x, spans, strides))
    if dimensions == 2 and own and not same and node.attrs.get("ceil_mode", 0):
        output = _rounded_up(context, node, x, kernel, strides, pairs)
        if output is not None:
            return output
    extra = [0] * dimensions if same else _ceil(node, x, spans, strides, pairs)
    window = PoolingWindow(kernel, strides, dilations, pairs, extra)
    if node.op == "LpPool" and (power != 2 or dimensions > 2 or max(dilations) > 1):
        return _power_mean(context, x, window, power)
    is_average = node.op == "AveragePool"
    excludes = is_average and not counts
    if dimensions > 2 and max(dilations) == 1 and not any(extra):
        kind = "AVERAGE" if is_average else "MAX"
        return pooled(context, x, kind, kernel, replace(windows, pairs=pairs), excludes=excludes)
    if dimensions > 2 or max(dilations) > 1 or (is_average and counts and any(extra)):
        return _by_slices(context, x, window, is_average=is_average, counts=counts)
    full = replace(windows, pairs=window.padding, same=same)
    return pooled(context, x, _KINDS[node.op], kernel, full, excludes=excludes)


def _power_mean(context: Lowering, x: Blob, window: PoolingWindow, power: int) -> Blob:
    """(sum of |x| ** power) ** (1 / power), by shifted slices."""
    magnitude = context.emit("unary", x, type="ABS")
    raised = context.emit("unary", magnitude, type="POWER", alpha=float(power))
    total = _combined(context, "add", _slices(context, raised, window))
    return context.emit("unary", total, type="POWER", alpha=1.0 / power)


def _combined(context: Lowering, kind: str, parts: list[Blob]) -> Blob:
    """Slices combined value by value."""
    return parts[0] if len(parts) == 1 else context.layer(kind, *parts)


def _slices(context: Lowering, x: Blob, window: PoolingWindow, filler: float = 0.0) -> list[Blob]:
    return shifted(context, x, *window[:3], window.padding, filler)


def _by_slices(
    context: Lowering, x: Blob, window: PoolingWindow, *, is_average: bool, counts: bool
) -> Blob:
    if not is_average:
        return _combined(context, "max", _slices(context, x, window, _LOWEST))
    total = _combined(context, "add", _slices(context, x, window))
    inside = np.pad(np.ones(known(x)[2:]), window.pairs, constant_values=float(counts))
    inside = np.pad(inside, [(0, e) for e in window.extra])
    number = np.zeros(known(total)[2:])
    for _, entries in taps_of(window.kernel, window.dilations, window.strides, number.shape):
        number += inside[entries]
    return context.divide(total, context.constant(number[None, None]))


def _rounded_up(
    context: Lowering, node: Node, x: Blob, kernel: list[int], strides: list[int], pairs: Pairs
) -> Blob | None:
    """`ceil_mode` at any size: Core ML's own, for equal padding at both ends."""
    counts = node.attrs.get("count_include_pad", 0) and node.op == "AveragePool"
    if counts or any(a != b for a, b in pairs):
        if None not in x.known[2:]:
            return None
        raise ConversionError(
            f"ceil_mode with dilations, unequal pads or count_include_pad needs the flexible "
            f"shape {show(x.known)} to be fixed: inputs=[mlferry.TensorType(shape=...)]"
        )
    return context.layer(
        "pooling",
        x,
        type=_KINDS[node.op],
        kernelSize=kernel,
        stride=strides,
        avgPoolExcludePadding=node.op == "AveragePool",
        includeLastPixel={"paddingAmounts": [a for a, _ in pairs]},
    )


def _with_indices(
    context: Lowering, x: Blob, window: PoolingWindow, column_major: bool
) -> tuple[Blob, Blob]:
    """The maximum of the shifted slices, and the index of the first one that has it."""
    if x.rank > 4:
        raise ConversionError("the indices of a MaxPool over volumes")
    kernel, strides, dilations, pairs, _ = window
    outer, sizes = known(x)[:2], known(x)[2:]
    parts = _slices(context, x, window, _LOWEST)
    stacked = joined(context, [context.expand(part, 0) for part in parts], 0)
    best = context.reduce("reduceMax", stacked, (0,), keep=False)
    chosen = context.layer("argMax", stacked, axis=0, removeDim=True)
    counts = known(parts[0])[2:]
    shape = (math.prod(outer), *counts)
    context.compute(8 * math.prod(shape))
    weights = np.cumprod([1, *sizes[:-1]] if column_major else [1, *sizes[:0:-1]])
    weights = weights if column_major else weights[::-1]
    steps = [int((np.array(place) * dilations * weights).sum()) for place in np.ndindex(*kernel)]
    base = np.arange(shape[0]).reshape(-1, *(1,) * len(sizes)) * math.prod(sizes)
    for axis, count in enumerate(counts):
        starts = (np.arange(count) * strides[axis] - pairs[axis][0]) * weights[axis]
        base = base + starts.reshape(-1, *(1,) * (len(sizes) - axis - 1))
    if np.max(base) + max(steps) > _EXACT:
        raise ConversionError("indices above 2**24, which Core ML's float32 cannot hold exactly")
    moved = context.gather(context.constant(steps), _flat(context, chosen), 0)
    start = context.constant(base.reshape(*outer, *counts))
    offset = context.reshape(moved, (*outer, *counts))
    return best, context.add(offset, start)


_LOWEST = float(np.finfo(np.float32).min)
_EXACT = 2**24


def _flat(context: Lowering, x: Blob) -> Blob:
    return context.reshape(x, (math.prod(known(x)),))


@op("MaxUnpool", constants=(2,))
def max_unpool(
    context: Lowering, node: Node, x: Blob, indices: Blob, shape: Array | None = None
) -> Blob:
    """Values at their indices, which count through the whole result; zeros elsewhere."""
    kernel = list(node.attrs["kernel_shape"])
    strides, _ = options(node, len(kernel), tuple(kernel))
    flat = node.attrs.get("pads") or [0] * (2 * len(kernel))
    sizes = [
        (n - 1) * s + k - flat[axis] - flat[axis + len(kernel)]
        for axis, (n, s, k) in enumerate(zip(known(x)[2:], strides, kernel, strict=True))
    ]
    plain = (*known(x)[:2], *sizes)
    target = plain if shape is None else ints(shape)
    if target[:2] != plain[:2] or math.prod(target) > _EXACT:
        raise ConversionError(f"an output_shape of {target} for {plain}")
    zeros = context.filled((math.prod(target),))
    places = _relocated(context, _flat(context, indices), plain, target)
    filled = context.layer("scatter", zeros, places, _flat(context, x), axis=0)
    return context.reshape(filled, target)


def _relocated(
    context: Lowering, places: Blob, plain: tuple[int, ...], target: tuple[int, ...]
) -> Blob:
    """Indices through the result, from indices that ignore `output_shape`."""
    if plain == target:
        return places
    if any(a > b for a, b in zip(plain, target, strict=True)):
        raise ConversionError(f"an output_shape of {target}, smaller than {plain}")
    grid = np.indices(plain).reshape(len(plain), -1)
    table = np.ravel_multi_index(tuple(grid), target)
    return context.gather(context.constant(table), places, 0)


def _ceil(
    node: Node,
    x: Blob,
    spans: Sequence[int],
    strides: Sequence[int],
    pairs: Sequence[Sequence[int]],
) -> list[int]:
    """The additional padding that windows of `ceil_mode` need."""
    if not node.attrs.get("ceil_mode", 0):
        return [0] * len(spans)
    extra = []
    sizes = known(x)[2:]
    for size, span, stride, (before, after) in zip(sizes, spans, strides, pairs, strict=True):
        room = size + before + after - span
        count = -(-room // stride) + 1
        if (count - 1) * stride >= size + before:
            count -= 1
        extra.append(max(0, (count - 1) * stride + span - (size + before + after)))
    return extra


_GLOBAL = {"GlobalMaxPool": "reduceMax", "GlobalAveragePool": "reduceMean"}


@op(*_GLOBAL)
def global_pool(context: Lowering, node: Node, x: Blob) -> Blob:
    if x.rank == 4:
        kind = "MAX" if node.op == "GlobalMaxPool" else "AVERAGE"
        return context.layer("pooling", x, type=kind, globalPooling=True, valid={})
    axes = range(2, x.rank)
    return context.layer(_GLOBAL[node.op], x, axes=axes, keepDims=True)


@op("GlobalLpPool")
def global_lp_pool(context: Lowering, node: Node, x: Blob) -> Blob:
    power = node.attrs.get("p", 2)
    kind = {1: "reduceL1", 2: "reduceL2"}.get(int(power))
    if kind is None:
        raise ConversionError(f"p={power}: the L1 and L2 norms can be converted")
    return context.layer(kind, x, axes=range(2, x.rank), keepDims=True)
