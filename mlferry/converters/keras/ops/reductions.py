"""`keras.ops` that reduce axes, sort, or multiply matrices."""

from __future__ import annotations

from mlferry.converters.einsums import einsum as einsum_of
from mlferry.converters.graph import Node
from mlferry.converters.keras.calls import call_of, placed
from mlferry.converters.keras.ops.functions import axes_of, function, operands
from mlferry.converters.keras.ops.manipulation import diagonal
from mlferry.converters.keras.ops.registry import op
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent, positive
from mlferry.converters.slices import entry, padded
from mlferry.converters.values import SCALAR, SOURCE, UNFLATTENED, Argument, Blob
from mlferry.converters.vectors import cross_product
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Axes

_TF = {"input_tensor": "x"}


def _reduced(context: Lowering, kind: str, x: Blob, axis: Axes, keepdims: bool) -> Blob:
    axes = axes_of(x, axis)
    output = context.emit(kind, x, axes=axes, keepDims=bool(keepdims))
    if keepdims:
        return output
    if len(axes) == x.rank:
        return Blob(output.name, output.shape, SCALAR)
    # with one axis removed, a blob is in the source's order if its other axes are
    remaining = [a for a in range(x.rank) if a not in axes]
    if x.layout != SOURCE and len(remaining) >= 3:
        raise ConversionError("a reduction in a layout of its own")
    if x.layout != SOURCE and remaining == [0, 1]:
        return Blob(output.name, output.shape, SOURCE, output.hidden_by)
    return output


def _in_order(context: Lowering, x: Blob, axis: Axes, keepdims: bool) -> Blob:
    """Only reductions of height and width, or that keep their axes, run channels-first."""
    axes = set(axes_of(x, axis))
    spatial = x.rank == 4 and axes == {2, 3}
    return x if keepdims or spatial or x.layout == SOURCE else context.source_order(x)


def _register(name: str, kind: str, *tf: str) -> None:
    @function(name, tf=dict.fromkeys(tf, _TF), layouts=UNFLATTENED)
    def convert(
        context: Lowering,
        node: Node,
        x: Blob,
        axis: Axes = None,
        keepdims: bool = False,
        initial: object = None,
        dtype: str | None = None,
    ) -> Blob:
        if initial is not None:
            raise ConversionError(f"initial={initial!r}")
        blob = _in_order(context, x, axis, keepdims)
        return _reduced(context, kind, blob, axis, keepdims)


for _name, _kind, *_tf in (
    ("Sum", "reduceSum", "math.reduce_sum", "reduce_sum"),
    ("Mean", "reduceMean", "math.reduce_mean", "reduce_mean"),
    ("Max", "reduceMax", "math.reduce_max", "reduce_max"),
    ("Amax", "reduceMax"),
    ("Min", "reduceMin", "math.reduce_min", "reduce_min"),
    ("Amin", "reduceMin"),
    ("Prod", "reduceProd", "math.reduce_prod", "reduce_prod"),
    ("Logsumexp", "reduceLogSumExp", "math.reduce_logsumexp"),
    ("Any", "reduceMax", "math.reduce_any", "reduce_any"),
    ("All", "reduceMin", "math.reduce_all", "reduce_all"),
):
    _register(_name, _kind, *_tf)


@function("Var", tf={"math.reduce_variance": _TF})
def var(context: Lowering, node: Node, x: Blob, axis: Axes = None, keepdims: bool = False) -> Blob:
    mean = context.layer("reduceMean", x, axes=axes_of(x, axis), keepDims=True)
    centered = context.layer("subtractBroadcastable", x, mean)
    return _reduced(
        context, "reduceMean", context.layer("multiply", centered, centered), axis, keepdims
    )


@function("Std", tf={"math.reduce_std": _TF})
def std(context: Lowering, node: Node, x: Blob, axis: Axes = None, keepdims: bool = False) -> Blob:
    spread = var(context, node, x, axis, keepdims)
    return context.emit("unary", spread, type="SQRT")


@function("Norm", tf={"norm": {"tensor": "x", "ord": "order"}})
def norm(
    context: Lowering,
    node: Node,
    x: Blob,
    ord: int | str | None = None,
    axis: Axes = None,
    keepdims: bool = False,
    order: int | str | None = None,
) -> Blob:
    """Norms of vectors, from their squares or magnitudes."""
    which = ord if order is None else order
    kinds = {None: "reduceL2", 2: "reduceL2", "euclidean": "reduceL2", 1: "reduceL1"}
    if which not in kinds or (isinstance(axis, list | tuple) and len(axis) > 1 and which):
        raise ConversionError(f"ord={which!r}: 1 and 2 of vectors can be converted")
    return _reduced(context, kinds[which], x, axis, keepdims)


@function("Normalize")
def normalize(
    context: Lowering,
    node: Node,
    x: Blob,
    axis: Axes = -1,
    order: int | str = 2,
    epsilon: float | None = None,
) -> Blob:
    """x / max(norm, epsilon)"""
    if order not in (1, 2):
        raise ConversionError(f"order={order!r}: 1 and 2 can be converted")
    floor = 1e-7 if epsilon is None else float(epsilon)
    kind = "reduceL2" if order == 2 else "reduceL1"
    length = context.layer(kind, x, axes=axes_of(x, axis), keepDims=True)
    safe = context.layer("clip", length, minVal=floor, maxVal=3.4e38)
    return context.layer("divideBroadcastable", x, safe)


@function("L2Normalize", tf={"math.l2_normalize": {}, "nn.l2_normalize": {}})
def l2_normalize(
    context: Lowering, node: Node, x: Blob, axis: Axes = None, epsilon: float = 1e-12
) -> Blob:
    """x / sqrt(max(sum of squares, epsilon))"""
    squares = context.layer("reduceSumSquare", x, axes=axes_of(x, axis), keepDims=True)
    safe = context.layer("clip", squares, minVal=float(epsilon), maxVal=3.4e38)
    return context.layer("divideBroadcastable", x, context.layer("unary", safe, type="SQRT"))


@function(
    "Argmax",
    "Argmin",
    tf={name: {"input": "x"} for name in ("math.argmax", "argmax", "math.argmin")},
)
def arg_extreme(
    context: Lowering, node: Node, x: Blob, axis: int | None = None, keepdims: bool = False
) -> Blob:
    largest = node.op.lower().endswith("argmax")
    if axis is None and largest and node.op.startswith("tf."):
        axis = 0
    if axis is None:
        raise ConversionError("axis=None: the place among all values")
    kind = "argMax" if largest else "argMin"
    return context.layer(kind, x, axis=positive(int(axis), x.rank), removeDim=not keepdims)


@function("CountNonzero")
def count_nonzero(context: Lowering, node: Node, x: Blob, axis: Axes = None) -> Blob:
    return _reduced(context, "reduceSum", context.layer("notEqual", x, alpha=0.0), axis, False)


@function("Trace")
def trace(
    context: Lowering, node: Node, x: Blob, offset: int = 0, axis1: int = 0, axis2: int = 1
) -> Blob:
    return _reduced(
        context, "reduceSum", diagonal(context, node, x, offset, axis1, axis2), -1, False
    )


@function("Cumsum", tf={"math.cumsum": {}, "cumsum": {}})
def cumsum(
    context: Lowering,
    node: Node,
    x: Blob,
    axis: int = 0,
    exclusive: bool = False,
    reverse: bool = False,
    dtype: str | None = None,
) -> Blob:
    place = positive(int(axis), x.rank)
    return context.layer(
        "cumSum", x, axis=place, excludeFinalSum=bool(exclusive), reverse=bool(reverse)
    )


@function("TopK", tf={"math.top_k": {"input": "x"}, "nn.top_k": {"input": "x"}})
def top_k(
    context: Lowering, node: Node, x: Blob, k: int = 1, sorted: bool = True
) -> tuple[Blob, ...]:
    return context.outputs(2, "topK", x, axis=x.rank - 1, K=int(k))


@function("Sort", tf={"sort": {"values": "x"}})
def sort(
    context: Lowering, node: Node, x: Blob, axis: int = -1, direction: str = "ASCENDING"
) -> Blob:
    place = positive(axis, x.rank)
    size = x.known[place]
    if size is None:
        raise ConversionError("sorting along a flexible axis")
    down = direction == "DESCENDING"
    return context.outputs(2, "topK", x, axis=place, K=size, useBottomK=not down)[0]


# ---- products --------------------------------------------------------------------------


@function("Matmul", tf={"linalg.matmul": {"a": "x1", "b": "x2"}, "matmul": {"a": "x1", "b": "x2"}})
def matmul(
    context: Lowering,
    node: Node,
    x1: Argument,
    x2: Argument,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Blob:
    """Vectors count as one row or one column."""
    left, right = operands(context, x1, x2)
    rows, columns = left.rank == 1, right.rank == 1
    left = context.expand(left, 0) if rows else left
    right = context.expand(right, 1) if columns else right
    output = context.matmul(
        left, right, transpose_x=bool(transpose_a), transpose_y=bool(transpose_b)
    )
    single_axes = [output.rank - 2] * rows + [output.rank - 1] * columns
    if not single_axes:
        return output
    return context.layer("squeeze", output, layout=SOURCE, axes=tuple(single_axes))


@function("Dot")
def dot(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    left, right = operands(context, x1, x2)
    if right.rank > 2:
        raise ConversionError("dot of a second operand of more than two axes")
    return matmul(context, node, left, right)


@op("keras.ops.Einsum", layouts=(SOURCE,))
def einsum(context: Lowering, node: Node, *inputs: Blob) -> Blob:
    arguments = placed(call_of(node).args, inputs)
    node.arguments.get("args")
    return einsum_of(context, node.attrs["subscripts"], operands(context, *arguments))


@function("Tensordot", tf={"tensordot": {"a": "x1", "b": "x2"}})
def tensordot(context: Lowering, node: Node, x1: Argument, x2: Argument, axes: int = 2) -> Blob:
    left, right = operands(context, x1, x2)
    if isinstance(axes, int):
        first, second = list(range(left.rank - axes, left.rank)), list(range(axes))
    else:
        first, second = ([a] if isinstance(a, int) else list(a) for a in axes)
    first = [positive(a, left.rank) for a in first]
    second = [positive(a, right.rank) for a in second]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    one = [next(letters) for _ in range(left.rank)]
    two = [one[first[second.index(i)]] if i in second else next(letters) for i in range(right.rank)]
    rest = [c for i, c in enumerate(one) if i not in first]
    rest += [c for i, c in enumerate(two) if i not in second]
    return einsum_of(context, f"{''.join(one)},{''.join(two)}->{''.join(rest)}", [left, right])


@function("Cross")
def cross(
    context: Lowering,
    node: Node,
    x1: Blob,
    x2: Blob,
    axisa: int = -1,
    axisb: int = -1,
    axisc: int = -1,
    axis: int | None = None,
) -> Blob:
    """2-vectors lie in a plane; the product of two such is the component perpendicular to it."""
    places = (axisa, axisb, axisc) if axis is None else (axis,) * 3
    blobs = [
        _last(context, x, place)
        for x, place in zip(operands(context, x1, x2), places, strict=False)
    ]
    sizes = [extent(x, x.rank - 1) for x in blobs]
    if not set(sizes) <= {2, 3}:
        raise ConversionError(f"a cross product of vectors of {sizes[0]} and {sizes[1]}")
    spatial = [
        x if size == 3 else padded(context, x, [0] * (2 * x.rank - 1) + [1], "constant", 0.0)
        for x, size in zip(blobs, sizes, strict=True)
    ]
    output = cross_product(context, *spatial)
    if sizes == [2, 2]:
        return entry(context, output, output.rank - 1, 2)
    back = positive(places[2], output.rank)
    order = [*range(output.rank - 1)]
    order.insert(back, output.rank - 1)
    return output if back == output.rank - 1 else context.layer("transpose", output, axes=order)


def _last(context: Lowering, x: Blob, axis: int) -> Blob:
    """With an axis moved to the end."""
    place = positive(axis, x.rank)
    if place == x.rank - 1:
        return x
    order = [a for a in range(x.rank) if a != place]
    return context.layer("transpose", x, axes=(*order, place))


@function("Outer")
def outer(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    left, right = operands(context, x1, x2)
    return einsum_of(context, "a,b->ab", [left, right])


@function("OneHot", tf={"one_hot": {"indices": "x", "depth": "num_classes"}})
def one_hot(
    context: Lowering,
    node: Node,
    x: Blob,
    num_classes: int,
    axis: int = -1,
    on_value: float = 1,
    off_value: float = 0,
    dtype: str | None = None,
    sparse: bool = False,
) -> Blob:
    return context.layer(
        "oneHot",
        x,
        oneHotVectorSize=int(num_classes),
        axis=positive(axis, x.rank + 1),
        onValue=float(on_value),
        offValue=float(off_value),
    )
