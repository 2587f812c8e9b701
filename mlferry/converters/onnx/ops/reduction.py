"""Reductions, arguments of extremes, sorting and cumulative sums."""

from __future__ import annotations

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.extents import size_of
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    affine,
    as_blob,
    extent,
    ints,
    positive,
    rank,
    scalar,
    vector,
)
from mlferry.converters.slices import sliced
from mlferry.converters.values import Blob, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

_REDUCTIONS = {
    name: f"r{name[1:]}"
    for name in (
        *("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin"),
        *("ReduceSum", "ReduceProd", "ReduceMean"),
        *("ReduceLogSum", "ReduceSumSquare", "ReduceLogSumExp"),
    )
}


@op(*_REDUCTIONS, constants=(1,))
def reduce(context: Lowering, node: Node, x: Blob, axes: Array | None = None) -> Blob:
    """The axes are an attribute, or an input from opset 13 or 18 on."""
    option = node.attrs.get("axes") if axes is None else ints(axes)
    keep = bool(node.attrs.get("keepdims", 1))
    empty = option is None or len(option) == 0
    if node.attrs.get("noop_with_empty_axes", 0) and empty:
        return _pointwise(context, node, x)
    if rank(x) == 0:
        return _pointwise(context, node, x)
    reduced = range(x.rank) if empty else [positive(a, x.rank) for a in option or ()]
    axes_of = tuple(sorted(set(reduced)))
    output = context.layer(_REDUCTIONS[node.op], x, axes=axes_of, keepDims=keep, reduceAll=False)
    return output if keep or len(axes_of) < x.rank else scalar(output)


def _pointwise(context: Lowering, node: Node, x: Blob) -> Blob:
    """A reduction over no axes still applies its function to each value."""
    if node.op in ("ReduceL1", "ReduceL2"):
        return context.emit("unary", x, type="ABS")
    if node.op == "ReduceSumSquare":
        return context.multiply(x, x)
    if node.op == "ReduceLogSum":
        return context.emit("unary", x, type="LOG")
    return x


@op("ArgMax", "ArgMin")
def arg(context: Lowering, node: Node, x: Blob) -> Blob:
    """The first extreme wins; with `select_last_index` the last, by reversing the values."""
    axis = positive(node.attrs.get("axis", 0), x.rank)
    keep = bool(node.attrs.get("keepdims", 1))
    kind = "argMax" if node.op == "ArgMax" else "argMin"
    last = node.attrs.get("select_last_index", 0)
    if last:
        x = context.layer("reverse", x, reverseDim=[i == axis for i in range(x.rank)])
    output = context.layer(kind, x, axis=axis, removeDim=not keep)
    if not keep and x.rank == 1:
        output = scalar(output)
    if not last:
        return output
    if x.known[axis] is None:
        most = affine(context, size_of(context, x, axis), 1.0, -1.0)
        return context.subtract(scalar(most), output)
    return context.emit("activation", output, linear={"alpha": -1.0, "beta": extent(x, axis) - 1.0})


@op("TopK", raw=True)
def top_k(context: Lowering, node: Node, x: Operand, k: Operand | None = None) -> tuple[Blob, ...]:
    """Equal values are in Core ML's order; `sorted=0` allows any order. k may be computed."""
    x = as_blob(context, x)
    node.attrs.get("sorted")
    fewest = not node.attrs.get("largest", 1)
    axis = positive(node.attrs.get("axis", -1), x.rank)
    if isinstance(k, Blob):
        return context.outputs(2, "topK", x, vector(k), axis=axis, useBottomK=fewest)
    count = int(node.attrs["k"]) if k is None else ints(k.array)[0]
    size = x.known[axis]
    if count < 1 or (size is not None and count > extent(x, axis)):
        raise ConversionError(f"k={count} of {size} values")
    return context.outputs(2, "topK", x, axis=axis, K=count, useBottomK=fewest)


@op("CumSum", constants=(1,))
def cum_sum(context: Lowering, node: Node, x: Blob, axis: Array) -> Blob:
    return context.layer(
        "cumSum",
        x,
        axis=positive(ints(axis)[0], x.rank),
        excludeFinalSum=bool(node.attrs.get("exclusive", 0)),
        reverse=bool(node.attrs.get("reverse", 0)),
    )


@op("CumProd", constants=(1,))
def cum_prod(context: Lowering, node: Node, x: Blob, axis: Array) -> Blob:
    """Products of 1, 2, 4, ... values: each step multiplies two products of the step before."""
    place = positive(ints(axis)[0], x.rank)
    size = extent(x, place)
    turned = bool(node.attrs.get("reverse", 0))
    flags = [turned and i == place for i in range(x.rank)]
    output = context.layer("reverse", x, reverseDim=flags) if turned else x
    if node.attrs.get("exclusive", 0):
        output = _moved_on(context, output, place, 1)
    step = 1
    while step < size:
        output = context.multiply(output, _moved_on(context, output, place, step))
        step *= 2
    return context.layer("reverse", output, reverseDim=flags) if turned else output


def _moved_on(context: Lowering, x: Blob, axis: int, count: int) -> Blob:
    """The values of an axis moved to higher indices, with ones before them."""
    amounts = [count if i == 2 * axis else 0 for i in range(2 * x.rank)]
    longer = context.layer("constantPad", x, padAmounts=amounts, value=1.0)
    return sliced(context, longer, [0], [-count], [axis], None)


@op("LpNormalization")
def lp_normalization(context: Lowering, node: Node, x: Blob) -> Blob:
    """x divided by its L1 or L2 norm along an axis; 0 if the norm is 0."""
    axis = positive(node.attrs.get("axis", -1), x.rank)
    kind = {1: "reduceL1", 2: "reduceL2"}[node.attrs.get("p", 2)]
    norm = context.layer(kind, x, axes=(axis,), keepDims=True)
    gone = context.emit("equal", norm, alpha=0.0)
    return context.divide(x, context.add(norm, gone))
