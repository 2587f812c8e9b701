"""Layers that join several inputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from mlferry.converters.graph import Node
from mlferry.converters.keras import masks
from mlferry.converters.keras.ops.registry import op
from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, UNFLATTENED, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import axis_of


def _aligned(context: Lowering, inputs: Sequence[Blob]) -> list[Blob]:
    """Inputs of fewer axes get axes of 1 after the batch, as in Keras."""
    if len(inputs) < 2:
        raise ConversionError(f"{len(inputs)} inputs; a merge takes at least two")
    rank = max(x.rank for x in inputs)
    return [context.expand(x, *range(1, 1 + rank - x.rank)) if x.rank < rank else x for x in inputs]


def _merge(context: Lowering, inputs: Sequence[Blob], equal: str, broadcast: str) -> Blob:
    """One layer for inputs of one shape, a chain of broadcasting layers for others."""
    aligned = _aligned(context, inputs)
    if len({x.shape for x in aligned}) == 1:
        return context.layer(equal, *aligned, layout=aligned[0].layout)
    return functools.reduce(
        lambda x, y: context.layer(broadcast, x, y, layout=x.layout), aligned[1:], aligned[0]
    )


@op("Add", layouts=UNFLATTENED)
def add(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    return _merge(context, inputs, "add", "addBroadcastable")


@op("Multiply", layouts=UNFLATTENED)
def multiply(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    """Keras 3 takes 1 for masked values, and 0 for values masked in all inputs."""
    result = masks.of(context, node)
    if any(mask is not None for mask in result):
        return _masked_product(context, [context.source_order(x) for x in inputs], result)
    return _merge(context, inputs, "multiply", "multiplyBroadcastable")


def _wide(
    context: Lowering, inputs: Sequence[Blob], masks: Sequence[Blob | None]
) -> list[Blob | None]:
    """Masks with as many axes as their inputs."""
    return [
        None if mask is None else context.expand(mask, *range(mask.rank, x.rank))
        for x, mask in zip(inputs, masks, strict=True)
    ]


def _masked_product(context: Lowering, inputs: list[Blob], masks: Sequence[Blob | None]) -> Blob:
    wide = _wide(context, inputs, masks)
    one = context.constant([1.0], layout=SOURCE)
    values = [
        x if mask is None else context.where(mask, x, one)
        for x, mask in zip(inputs, wide, strict=True)
    ]
    output = _merge(context, values, "multiply", "multiplyBroadcastable")
    counting = [mask for mask in wide if mask is not None]
    if len(counting) < len(inputs):
        return output
    remaining = functools.reduce(context.maximum, counting)
    return context.multiply(output, remaining)


_EXTREMES = {"Maximum": "max", "Minimum": "min"}


@op(*_EXTREMES, layouts=UNFLATTENED)
def extreme(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    """Keras 3 takes the other input for masked values."""
    kind, result = _EXTREMES[node.op], masks.of(context, node)
    if all(mask is None for mask in result):
        return _merge(context, inputs, kind, f"{kind}Broadcastable")
    values = [context.source_order(x) for x in inputs]
    output, valid = values[0], _wide(context, values, result)[0]
    for x, mask in zip(values[1:], _wide(context, values, result)[1:], strict=True):
        other = x if mask is None else context.where(mask, x, output)
        output = output if valid is None else context.where(valid, output, other)
        output = context.layer(f"{kind}Broadcastable", output, other, layout=SOURCE)
        valid = context.maximum(valid, mask) if mask is not None and valid is not None else None
    return output


@op("Average", layouts=UNFLATTENED)
def average(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    aligned = _aligned(context, inputs)
    if len({x.shape for x in aligned}) == 1:
        return context.layer("average", *aligned, layout=aligned[0].layout)
    total = _merge(context, aligned, "add", "addBroadcastable")
    return context.layer("multiply", total, layout=total.layout, alpha=1 / len(aligned))


@op("Subtract", layouts=UNFLATTENED)
def subtract(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    if len(inputs) != 2:
        raise ConversionError(f"{len(inputs)} inputs; a Subtract takes two")
    left, right = _aligned(context, inputs)
    return context.subtract(left, right)


@op("Concatenate", layouts=UNFLATTENED)
def concatenate(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    axis = node.attrs.get("axis", -1)
    if len(inputs) == 1:
        return inputs[0]
    return context.layer("concatND", *inputs, layout=inputs[0].layout, axis=inputs[0].axis(axis))


@op("Dot", layouts=(SOURCE,))
def dot(context: Lowering, node: Node, x: Blob, y: Blob) -> Blob:
    """Sums of products over one axis of each input, for each sample; `normalize` gives cosines."""
    axes = node.attrs["axes"]
    pair = tuple(axes) if isinstance(axes, list | tuple) else (axes, axes)
    if len(pair) != 2 or not all(isinstance(axis, int) for axis in pair):
        raise ConversionError(f"axes={axes!r}: one axis of each input can be converted")
    left, right = axis_of(pair[0], x.rank), axis_of(pair[1], y.rank)
    if 0 in (left, right):
        raise ConversionError(f"axes={axes!r}: the batch cannot be summed over")
    if node.attrs.get("normalize", False):
        x, y = _normalized(context, x, left), _normalized(context, y, right)
    if x.rank == 2 and y.rank == 2:
        return context.layer("reduceSum", context.layer("multiply", x, y), axes=(1,), keepDims=True)
    rest_x = [n for axis, n in enumerate(x.known) if axis not in (0, left)]
    rest_y = [n for axis, n in enumerate(y.known) if axis not in (0, right)]
    rows = _matrix(context, x, left, last=True)
    columns = _matrix(context, y, right, last=False)
    product = context.layer("batchedMatmul", rows, columns)
    return context.reshape(product, (x.known[0], *rest_x, *rest_y))


def _normalized(context: Lowering, x: Blob, axis: int) -> Blob:
    """x / sqrt(max(sum of squares, 1e-12))"""
    squares = context.layer("reduceSumSquare", x, axes=(axis,), keepDims=True)
    floor = context.layer("clip", squares, minVal=1e-12, maxVal=3.4e38)
    root = context.layer("unary", floor, type="SQRT")
    return context.layer("divideBroadcastable", x, root)


def _matrix(context: Lowering, x: Blob, axis: int, *, last: bool) -> Blob:
    """[batch, rest, axis], or [batch, axis, rest]."""
    rest = [i for i in range(1, x.rank) if i != axis]
    order = (0, *rest, axis) if last else (0, axis, *rest)
    if order != tuple(range(x.rank)):
        x = context.layer("transpose", x, axes=order)
    extent = x.known[-1] if last else x.known[1]
    shape = (x.known[0], None, extent) if last else (x.known[0], extent, None)
    sizes = [n for i, n in enumerate(x.known) if i and i != (x.rank - 1 if last else 1)]
    total = 1
    for size in sizes:
        if size is None:
            raise ConversionError("a Dot over inputs of flexible shapes")
        total *= size
    fixed = tuple(total if n is None and i else n for i, n in enumerate(shape))
    return context.reshape(x, fixed)
