"""Gather, scatter, sorting, and other layers that use indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.layers.params import Params
from mlferry.layers.programs import as_program
from mlferry.layers.reduction.program import at_least_1d
from mlferry.numerics.shapes import axis_of
from mlferry.programs.builder import ProgramBuilder
from mlferry.programs.graph import Value
from mlferry.refusals import refuse

_FROM_THE_END = 7  # from this opset on, negative indices are invalid
_POSITIVE = {"reduce_argmax", "reduce_argmin", "argsort", "topk", "shape", "non_zero"}
_MODES = {
    "SCATTER_UPDATE": "update",
    "SCATTER_ADD": "add",
    "SCATTER_SUB": "sub",
    "SCATTER_MUL": "mul",
    "SCATTER_DIV": "div",
    "SCATTER_MAX": "max",
    "SCATTER_MIN": "min",
}


def _indices(builder: ProgramBuilder, indices: Value, extents: Sequence[int | Value]) -> Value:
    """Indices as an op takes them: negative ones count from the end of their axis."""
    whole = builder.as_integer(indices)
    if builder.opset < _FROM_THE_END or is_positive(whole):
        return whole
    more = builder.vector(extents) if len(extents) > 1 else extents[0]
    if isinstance(more, int):
        more = builder.constant(np.int32(more))
    negative = builder.op("less", x=whole, y=0)
    return builder.where(negative, builder.op("add", x=whole, y=more), whole)


def is_positive(indices: Value) -> bool:
    """Whether indices are known not to be negative."""
    if indices.is_constant:
        return bool((indices.constant >= 0).all())
    return indices.maker is not None and indices.maker.op in _POSITIVE


_GATHERS = {"gather": "gather", "gatherAlongAxis": "gather_along_axis"}


@as_program(*_GATHERS)
def gather(builder: ProgramBuilder, params: Params, x: Value, indices: Value) -> Value:
    axis = axis_of(params.axis, x.rank)
    places = _indices(builder, indices, [builder.extent(x, axis)])
    op = _GATHERS[params.kind]
    return at_least_1d(builder, builder.op(op, x=_number(builder, x), indices=places, axis=axis))


def _number(builder: ProgramBuilder, x: Value) -> Value:
    """A value as gathering ops take it: not booleans."""
    return builder.as_integer(x) if x.dtype == "bool" else x


_SCATTERS = {"scatter": "scatter", "scatterAlongAxis": "scatter_along_axis"}


@as_program(*_SCATTERS)
def scatter(
    builder: ProgramBuilder, params: Params, x: Value, indices: Value, updates: Value
) -> Value:
    """`scatter` is the inverse of `gather`: it updates slices, one element at a time."""
    axis = axis_of(params.axis, x.rank)
    data, values = builder.alike(x, updates)
    places = _indices(builder, indices, [builder.extent(x, axis)])
    return builder.op(
        _SCATTERS[params.kind],
        data=data,
        indices=places,
        updates=values,
        axis=axis,
        mode=_MODES[params.mode],
    )


@as_program("gatherND", limits="indices whose number of axes is not known")
def gather_nd(builder: ProgramBuilder, params: Params, x: Value, indices: Value) -> Value:
    """The last axis of the indices is a position in the first axes of the data."""
    places = _points(builder, x, indices)
    return at_least_1d(builder, builder.op("gather_nd", x=_number(builder, x), indices=places))


def _points(builder: ProgramBuilder, x: Value, indices: Value) -> Value:
    depth = indices.shape[-1]
    if depth is None:
        raise refuse("how many axes an index has is not known")
    return _indices(builder, indices, builder.extents(x)[:depth])


@as_program("scatterND", limits="indices whose number of axes is not known")
def scatter_nd(
    builder: ProgramBuilder, params: Params, x: Value, indices: Value, updates: Value
) -> Value:
    places = _points(builder, x, indices)
    data, values = builder.alike(x, updates)
    depth = indices.shape[-1] or 0
    target = [*builder.extents(indices)[:-1], *builder.extents(x)[depth:]]
    rows = builder.reshape(values, target)
    mode = _MODES[params.mode]
    return builder.op("scatter_nd", data=data, indices=places, updates=rows, mode=mode)


@as_program("whereNonZero")
def where_non_zero(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """The positions of values other than 0, one per row, in row-major order."""
    return builder.op("non_zero", x=x)


@as_program("whereBroadcastable")
def where_broadcastable(
    builder: ProgramBuilder, params: Params, condition: Value, left: Value, right: Value
) -> Value:
    return builder.where(condition, left, right)


@as_program("oneHot")
def one_hot(builder: ProgramBuilder, params: Params, x: Value, *size: Value) -> Value:
    """`onValue` at the index, `offValue` elsewhere, and everywhere for an index outside."""
    indices = builder.as_integer(x)
    count = (
        builder.reshape(builder.as_integer(size[0]), [])
        if size
        else builder.constant(np.int32(params.oneHotVectorSize))
    )
    if not is_positive(indices):  # the op counts negative ones from the end
        indices = builder.where(builder.op("less", x=indices, y=0), count, indices)
    return builder.op(
        "one_hot",
        indices=indices,
        one_hot_vector_size=count,
        axis=axis_of(params.axis, x.rank + 1),
        on_value=np.float32(params.onValue),
        off_value=np.float32(params.offValue),
    )


@as_program("topK")
def top_k(builder: ProgramBuilder, params: Params, x: Value, *count: Value) -> tuple[Value, ...]:
    """The largest values, largest first, and their indices; or the smallest."""
    axis, ascending = axis_of(params.axis, x.rank), params.useBottomK
    x = _number(builder, x)
    number = builder.as_integer(count[0]) if count else None
    if number is None or number.is_constant:
        k = params.K if number is None else int(number.constant.reshape(-1)[0])
        return builder.ops("topk", x=x, k=k, axis=axis, ascending=ascending)
    order = builder.op("argsort", x=x, axis=axis, ascending=ascending)
    first = builder.reshape(number, [1])
    places = builder.op(
        "slice_by_size",
        x=order,
        begin=[0] * x.rank,
        size=builder.vector([first if i == axis else -1 for i in range(x.rank)]),
    )
    return builder.op("gather_along_axis", x=x, indices=places, axis=axis), places


@as_program("argSort")
def arg_sort(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    axis = axis_of(params.axis, x.rank)
    ascending = not params.descending
    return builder.op("argsort", x=_number(builder, x), axis=axis, ascending=ascending)


_EXTREMES = {"argMax": "reduce_argmax", "argMin": "reduce_argmin"}


@as_program(*_EXTREMES)
def arg_extreme(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """The first index of equal values."""
    axis = axis_of(params.axis, x.rank)
    y = builder.op(
        _EXTREMES[params.kind], x=_number(builder, x), axis=axis, keep_dims=not params.removeDim
    )
    return at_least_1d(builder, y)


@as_program("cumSum", limits="an axis that is computed")
def cum_sum(builder: ProgramBuilder, params: Params, x: Value, *axis: Value) -> Value:
    """`excludeFinalSum` shifts the sums by one; `reverse` sums from the end."""
    along = params.axis
    if axis:
        if not axis[0].is_constant:
            raise refuse("its axis is computed")
        along = int(axis[0].constant.reshape(-1)[0])
    return builder.op(
        "cumsum",
        x=_number(builder, x),
        axis=axis_of(along, x.rank),
        exclusive=params.excludeFinalSum,
        reverse=params.reverse,
    )


@as_program("reverse")
def reverse(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    axes = [axis for axis, flag in enumerate(params.reverseDim) if flag]
    return builder.op("reverse", x=x, axes=axes) if axes else x


@as_program("reverseSeq")
def reverse_seq(builder: ProgramBuilder, params: Params, x: Value, lengths: Value) -> Value:
    """Reverse as much of each sequence in the batch as its length says."""
    return builder.op(
        "reverse_sequence",
        x=x,
        lengths=builder.as_integer(lengths),
        seq_axis=axis_of(params.sequenceAxis, x.rank),
        batch_axis=axis_of(params.batchAxis, x.rank),
    )


def _band(builder: ProgramBuilder, x: Value, lower: int, upper: int) -> Value:
    if lower < 0 and upper < 0:
        return x
    return builder.op("band_part", x=x, lower=lower, upper=upper)


@as_program("matrixBandPart")
def matrix_band_part(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Keep this many diagonals below and above the main one; a negative number keeps all."""
    return _band(builder, x, params.numLower, params.numUpper)


def _outside(builder: ProgramBuilder, x: Value, lower: int, upper: int) -> Value:
    """The values outside a band, with zeros in the band."""
    size = [1] * (x.rank - 2) + builder.extents(x)[-2:]
    ones = builder.op("fill", shape=builder.vector(size), value=np.float32(1))
    band = builder.op("band_part", x=ones, lower=lower, upper=upper)
    zero = builder.constant(np.zeros((), np.int32 if x.dtype == "int32" else np.float32))
    return builder.where(band, zero, x)


@as_program("lowerTriangular", "upperTriangular")
def triangular(builder: ProgramBuilder, params: Params, x: Value) -> Value:
    """Zero above diagonal `k`, or below it."""
    x, k = _number(builder, x), params.k
    if params.kind == "lowerTriangular":
        return _band(builder, x, -1, k) if k >= 0 else _outside(builder, x, -k - 1, -1)
    return _band(builder, x, -k, -1) if k <= 0 else _outside(builder, x, -1, k - 1)
