"""Pooling, and its inverse by indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.convolutions import Pairs, each, padding, sides
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.convolution import options, pads_of, windows
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import emit, ints, joined, known
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import show

_KINDS = {"MaxPool": "MAX", "AveragePool": "AVERAGE", "LpPool": "L2"}


class PoolingWindow(NamedTuple):
    """What a pooling slides over its input; the padding at the ends as pairs, and what
    `ceil_mode` adds behind them."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pairs: Pairs
    extra: list[int]


@op(*_KINDS)
def pool(context: Lowering, node: Node, x: Blob) -> Blob | tuple[Blob, Blob]:
    """Windows of `ceil_mode` that start in the padding at the end are dropped."""
    dimensions = x.rank - 2
    kernel = list(node.attrs["kernel_shape"])
    strides, dilations = options(node, dimensions, tuple(kernel))
    column_major = node.attrs.get("storage_order", 0)
    if len(node.outputs) > 1 and node.outputs[1].name:
        return _with_indices(context, node, x, kernel, strides, dilations, bool(column_major))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    how = windows(node, x, kernel, strides, dilations)
    counts = bool(node.attrs.get("count_include_pad", 0))
    p = node.attrs.get("p", 2)
    own = max(dilations) == 1 and p == 2
    same = how.same if own else ""
    pairs = list(how.pairs) if same == how.same else list(pads_of(node, x, spans, strides))
    if dimensions == 2 and own and not same and node.attrs.get("ceil_mode", 0):
        output = _rounded_up(context, node, x, kernel, strides, pairs)
        if output is not None:
            return output
    extra = [0] * dimensions if same else _ceil(node, x, spans, strides, pairs)
    if node.op == "LpPool" and (p != 2 or dimensions > 2 or max(dilations) > 1):
        return _power_mean(context, node, x, p)
    window = PoolingWindow(kernel, strides, dilations, pairs, extra)
    if dimensions > 2:
        return _volume(context, node, x, window, counts=counts)
    beyond = node.op == "AveragePool" and counts and any(extra)
    if beyond or any(d > 1 for d in dilations):
        return _by_slices(context, node, x, window, counts=counts)
    full = [(a, b + e) for (a, b), e in zip(pairs, extra, strict=True)]
    blob = context.expand(x, 2) if dimensions == 1 else x
    if dimensions == 1:
        kernel, strides, full = [1, *kernel], [1, *strides], [(0, 0), *full]
    output = context.layer(
        "pooling",
        blob,
        layout=SOURCE,
        type=_KINDS[node.op],
        kernelSize=kernel,
        stride=strides,
        avgPoolExcludePadding=node.op == "AveragePool" and not counts,
        **padding(full, same),
    )
    return context.squeeze(output, 2) if dimensions == 1 else output


def _power_mean(context: Lowering, node: Node, x: Blob, p: int) -> Blob:
    """(sum of |x| ** p) ** (1 / p): a convolution of ones, one group a channel."""
    kernel = list(node.attrs["kernel_shape"])
    strides = list(node.attrs.get("strides") or [1] * len(kernel))
    dilations = list(node.attrs.get("dilations") or [1] * len(kernel))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pairs = pads_of(node, x, spans, strides)
    extra = _ceil(node, x, spans, strides, pairs)
    magnitude = emit(context, "unary", x, type="ABS")
    raised = emit(context, "unary", magnitude, type="POWER", alpha=float(p))
    full = [(a, b + e) for (a, b), e in zip(pairs, extra, strict=True)]
    if any(map(any, full)):
        flat = [0, 0, 0, 0, *(n for pair in full for n in pair)]
        raised = context.layer("constantPad", raised, layout=SOURCE, padAmounts=flat)
    total = _sum_of_windows(context, raised, kernel, strides, dilations)
    return emit(context, "unary", total, type="POWER", alpha=1.0 / p)


def _sum_of_windows(
    context: Lowering, x: Blob, kernel: list[int], strides: list[int], dilations: list[int]
) -> Blob:
    """The sum over shifted slices."""
    parts = _slices(context, x, kernel, strides, dilations)
    return parts[0] if len(parts) == 1 else context.layer("add", *parts, layout=SOURCE)


def _slices(
    context: Lowering, x: Blob, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[Blob]:
    """One slice of the padded input for every place of the kernel."""
    counts = [
        (n - ((k - 1) * d + 1)) // s + 1
        for n, k, d, s in zip(known(x)[2:], kernel, dilations, strides, strict=True)
    ]
    keep, cut = [True, True], [False] * len(kernel)
    parts = []
    for place in np.ndindex(*kernel):
        begin = [i * d for i, d in zip(place, dilations, strict=True)]
        end = [b + (c - 1) * s + 1 for b, c, s in zip(begin, counts, strides, strict=True)]
        parts.append(
            context.layer(
                "sliceStatic",
                x,
                layout=SOURCE,
                beginIds=[0, 0, *begin],
                endIds=[0, 0, *end],
                beginMasks=[*keep, *cut],
                endMasks=[*keep, *cut],
                strides=[1, 1, *strides],
            )
        )
    return parts


def _volume(context: Lowering, node: Node, x: Blob, window: PoolingWindow, *, counts: bool) -> Blob:
    """Three dimensions without dilation and rounding up are Core ML's own; others are slices."""
    kernel, strides, dilations, pairs, extra = window
    average = node.op == "AveragePool"
    if max(dilations) == 1 and not any(extra):
        return context.layer(
            "pooling3d",
            x,
            layout=SOURCE,
            type="AVERAGE" if average else "MAX",
            paddingType="CUSTOM",
            countExcludePadding=average and not counts,
            **each("kernel", kernel),
            **each("stride", strides),
            **sides(pairs),
        )
    return _by_slices(context, node, x, window, counts=counts)


def _by_slices(
    context: Lowering, node: Node, x: Blob, window: PoolingWindow, *, counts: bool
) -> Blob:
    kernel, strides, dilations, pairs, extra = window
    average = node.op == "AveragePool"
    full = [(a, b + e) for (a, b), e in zip(pairs, extra, strict=True)]
    filler = 0.0 if average else float(np.finfo(np.float32).min)
    sizes = known(x)[2:]
    if any(map(any, full)):
        flat = [0, 0, 0, 0, *(n for pair in full for n in pair)]
        x = context.layer("constantPad", x, layout=SOURCE, padAmounts=flat, value=filler)
    parts = _slices(context, x, kernel, strides, dilations)
    if not average:
        return parts[0] if len(parts) == 1 else context.layer("max", *parts, layout=SOURCE)
    total = parts[0] if len(parts) == 1 else context.layer("add", *parts, layout=SOURCE)
    inside = np.ones(sizes)
    inside = np.pad(inside, pairs, constant_values=float(counts))
    inside = np.pad(inside, [(0, e) for e in extra])
    number = np.zeros(known(total)[2:])
    for place in np.ndindex(*kernel):
        number += inside[
            tuple(
                slice(i * d, i * d + (n - 1) * s + 1, s)
                for i, d, n, s in zip(place, dilations, number.shape, strides, strict=True)
            )
        ]
    return emit(context, "divideBroadcastable", total, context.constant(number[None, None]))


def _rounded_up(
    context: Lowering, node: Node, x: Blob, kernel: list[int], strides: list[int], pairs: Pairs
) -> Blob | None:
    """`ceil_mode` at any size: Core ML's own, where both ends have the same padding.

    Raises:
        ConversionError: they have not, and the size is flexible.
    """
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
        layout=SOURCE,
        type=_KINDS[node.op],
        kernelSize=kernel,
        stride=strides,
        avgPoolExcludePadding=node.op == "AveragePool",
        includeLastPixel={"paddingAmounts": [a for a, _ in pairs]},
    )


def _with_indices(
    context: Lowering,
    node: Node,
    x: Blob,
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
    column_major: bool,
) -> tuple[Blob, Blob]:
    """The maximum of the shifted slices, and the place of the first one that has it."""
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pairs = pads_of(node, x, spans, strides)
    extra = _ceil(node, x, spans, strides, pairs)
    outer, sizes = known(x)[:2], known(x)[2:]
    amounts = [0, 0, 0, 0, *(n for (a, b), e in zip(pairs, extra, strict=True) for n in (a, b + e))]
    if any(amounts):
        x = context.layer("constantPad", x, layout=SOURCE, padAmounts=amounts, value=_LOWEST)
    parts = _slices(context, x, kernel, strides, dilations)
    stacked = joined(context, [_row(context, part) for part in parts], 0)
    best = context.layer("reduceMax", stacked, layout=SOURCE, axes=(0,), keepDims=False)
    chosen = context.layer("argMax", stacked, layout=SOURCE, axis=0, removeDim=True)
    counts = known(parts[0])[2:]
    shape = (math.prod(outer), *counts)
    order = "F" if column_major else "C"
    weights = np.array([1, *np.cumprod(sizes[::-1])[:-1]])[::-1]
    if order == "F":
        weights = np.array([1, *np.cumprod(sizes)[:-1]])
    steps = [int((np.array(place) * dilations * weights).sum()) for place in np.ndindex(*kernel)]
    base = np.arange(shape[0]).reshape(-1, *(1,) * len(sizes)) * math.prod(sizes)
    for axis, count in enumerate(counts):
        starts = (np.arange(count) * strides[axis] - pairs[axis][0]) * weights[axis]
        base = base + starts.reshape(-1, *(1,) * (len(sizes) - axis - 1))
    if np.max(base) + max(steps) > _EXACT:
        raise ConversionError("indices above 2**24, which Core ML's float32 cannot hold exactly")
    moved = context.layer(
        "gather", context.constant(steps), _flat(context, chosen), layout=SOURCE, axis=0
    )
    start = context.constant(base.reshape(*outer, *counts))
    offset = context.reshape(moved, (*outer, *counts), layout=SOURCE)
    return best, emit(context, "addBroadcastable", offset, start)


_LOWEST = float(np.finfo(np.float32).min)
_EXACT = 2**24


def _flat(context: Lowering, x: Blob) -> Blob:
    return context.reshape(x, (math.prod(known(x)),), layout=SOURCE)


def _row(context: Lowering, x: Blob) -> Blob:
    """Batch and channels as one axis behind a new first one, to stay within five axes."""
    return context.expand(x, 0) if x.rank < 5 else _refuse_volume()


def _refuse_volume() -> Blob:
    raise ConversionError("the indices of a MaxPool over volumes")


@op("MaxUnpool", constants=(2,))
def max_unpool(
    context: Lowering, node: Node, x: Blob, indices: Blob, shape: NDArray[Any] | None = None
) -> Blob:
    """Values at their places, which count through the whole result; zeros elsewhere."""
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
    zeros = context.constant(np.zeros(math.prod(target), np.float32))
    places = _relocated(context, _flat(context, indices), plain, target)
    filled = context.layer("scatter", zeros, places, _flat(context, x), layout=SOURCE, axis=0)
    return context.reshape(filled, target, layout=SOURCE)


def _relocated(
    context: Lowering, places: Blob, plain: tuple[int, ...], target: tuple[int, ...]
) -> Blob:
    """Indices count through the result without an output_shape: they are looked up for it."""
    if plain == target:
        return places
    if any(a > b for a, b in zip(plain, target, strict=True)):
        raise ConversionError(f"an output_shape of {target}, smaller than {plain}")
    grid = np.indices(plain).reshape(len(plain), -1)
    table = np.ravel_multi_index(tuple(grid), target)
    return context.layer("gather", context.constant(table), places, layout=SOURCE, axis=0)


def _ceil(
    node: Node,
    x: Blob,
    spans: Sequence[int],
    strides: Sequence[int],
    pairs: Sequence[Sequence[int]],
) -> list[int]:
    """How much padding more the windows of `ceil_mode` need."""
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
        return context.layer("pooling", x, layout=SOURCE, type=kind, globalPooling=True, valid={})
    axes = range(2, x.rank)
    return context.layer(_GLOBAL[node.op], x, layout=SOURCE, axes=axes, keepDims=True)


@op("GlobalLpPool")
def global_lp_pool(context: Lowering, node: Node, x: Blob) -> Blob:
    p = node.attrs.get("p", 2)
    kind = {1: "reduceL1", 2: "reduceL2"}.get(int(p))
    if kind is None:
        raise ConversionError(f"p={p}: the L1 and L2 norms can be converted")
    return context.layer(kind, x, layout=SOURCE, axes=range(2, x.rank), keepDims=True)
