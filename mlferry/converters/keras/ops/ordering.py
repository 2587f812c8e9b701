"""`keras.ops` that order values: sorting, quantiles, and searches in sorted bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.functions import function, operands
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, extent, known, positive
from mlferry.converters.values import SCALAR, SOURCE, Argument, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, Axes, product


@function("Argsort")
def argsort(context: Lowering, node: Node, x: Blob, axis: int | None = None) -> Blob:
    """Equal values keep their order; without an axis, all values count as one row."""
    if axis is None:
        flat = context.reshape(x, (product(known(x)),), layout=SOURCE)
        return context.layer("argSort", flat, axis=0)
    return context.layer("argSort", x, axis=positive(int(axis), x.rank))


@function("Median")
def median(
    context: Lowering, node: Node, x: Blob, axis: Axes = None, keepdims: bool = False
) -> Blob:
    output: Blob = quantile(context, node, x, 0.5, axis, keepdims=keepdims)
    return output


@function("Quantile")
def quantile(
    context: Lowering,
    node: Node,
    x: Blob,
    q: Argument,
    axis: Axes = None,
    method: str = "linear",
    keepdims: bool = False,
) -> Blob:
    """Interpolates between the two nearest sorted values; NaN if any value is NaN."""
    if isinstance(q, Blob) or np.ndim(q) > 1:
        raise ConversionError("quantiles that the model computes: numbers can be converted")
    if method != "linear":
        raise ConversionError(f"method={method!r}: 'linear' can be converted")
    axes = range(x.rank) if axis is None else axis if isinstance(axis, Sequence) else [axis]
    reduced = sorted(positive(int(a), x.rank) for a in axes)
    rest = [a for a in range(x.rank) if a not in reduced]
    count = product(extent(x, a) for a in reduced)
    if count is None:
        raise ConversionError("quantiles along a flexible axis")
    ordered = context.layer("transpose", x, axes=(*rest, *reduced))
    flat = context.reshape(ordered, (*(x.known[a] for a in rest), count))
    place = len(rest)
    values = context.outputs(2, "topK", flat, axis=place, K=count, useBottomK=True)[0]
    exact = (count - 1) * np.atleast_1d(np.asarray(q, np.float64))
    if exact.min() < 0 or exact.max() > count - 1:
        raise ConversionError(f"q={q!r}: quantiles lie between 0 and 1")
    lower = np.maximum(np.ceil(exact) - 1, 0)
    upper = np.minimum(lower + 1, count - 1)
    share = upper - exact
    parts = []
    for places, weight in ((upper, 1 - share), (lower, share)):
        result = context.layer("gather", values, context.constant(places), axis=place)
        parts.append(context.layer("multiplyBroadcastable", result, context.constant(weight)))
    output = context.layer("addBroadcastable", *parts)
    output = context.layer("addBroadcastable", output, _lost(context, flat, place))
    if keepdims:
        output = context.layer("expandDims", output, axes=tuple(reduced))
    if np.ndim(q):
        order = (output.rank - 1, *range(output.rank - 1))
        return context.layer("transpose", output, axes=order) if output.rank > 1 else output
    if output.rank == 1:
        return Blob(output.name, output.shape, SCALAR, output.hidden_by)
    return context.layer("squeeze", output, axes=(output.rank - 1,))


def _lost(context: Lowering, x: Blob, axis: int) -> Blob:
    """NaN if a value along an axis is NaN, else 0; the axis stays."""
    missing = context.layer("notEqual", x, x)
    output = context.layer("whereBroadcastable", missing, x, context.constant([0.0]))
    return context.layer("reduceSum", output, axes=(axis,), keepDims=True)


@function("Digitize")
def digitize(context: Lowering, node: Node, x: Blob, bins: Array) -> Blob:
    """The number of bounds that are not above a value; NaN is above all."""
    if isinstance(bins, Blob):
        raise ConversionError("bins that the model computes: a constant can be converted")
    bounds = np.asarray(bins, np.float32)
    if bounds.ndim != 1 or not bounds.size or (np.diff(bounds) < 0).any():
        raise ConversionError("bins are not sorted, as Keras requires")
    return _not_above(context, context.constant(bounds), x, len(bounds))


def _not_above(context: Lowering, bounds: Blob, x: Blob, count: int) -> Blob:
    """The number of [count] bounds that are not above each value."""
    above = context.layer("lessThan", context.expand(x, x.rank), bounds)
    number = context.layer("reduceSum", above, axes=(x.rank,), keepDims=False)
    return affine(context, number, -1.0, float(count))


@function("SearchSorted")
def search_sorted(
    context: Lowering, node: Node, sorted_sequence: Argument, values: Argument, side: str = "left"
) -> Blob:
    """The number of entries before a value; on the right side, equal ones count as well."""
    bounds, x = operands(context, sorted_sequence, values)
    if bounds.rank != 1:
        raise ConversionError(f"a sequence of {bounds.rank} axes: one of one axis can be converted")
    if side not in ("left", "right"):
        raise ConversionError(f"side={side!r}: left or right")
    if side == "right":
        return _not_above(context, bounds, x, extent(bounds, 0))
    below = context.layer("lessThan", bounds, context.expand(x, x.rank))
    return context.layer("reduceSum", below, axes=(x.rank,), keepDims=False)
