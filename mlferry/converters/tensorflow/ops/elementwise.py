"""Arithmetic, comparisons and activations, value by value."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlferry.converters import special
from mlferry.converters.absorbing import absorbed
from mlferry.converters.elementwise import FLOAT_MAX, PLAIN
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, array_of, as_blob, scalar, truncated
from mlferry.converters.tensorflow.ops.registry import (
    RANGES,
    SMALL,
    Complex,
    is_channels_first,
    joint,
    maps,
    op,
    read_all,
    wrapped,
)
from mlferry.converters.values import ANY, Blob, Constant, Opaque, Operand, Result
from mlferry.errors import ConversionError

_PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    **PLAIN,
    "Log1p": ("unary", {"type": "LOG", "shift": 1.0}),
    "Relu6": ("clip", {"minVal": 0.0, "maxVal": 6.0}),
    "Elu": ("activation", {"ELU": {"alpha": 1.0}}),
    "Rint": ("round", {}),
    "LogicalNot": ("logicalNot", {}),
    "OnesLike": ("fillLike", {"value": 1.0}),
    "ZerosLike": ("fillLike", {"value": 0.0}),
}


@op(*_PLAIN, layouts=ANY)
def plain(context: Lowering, node: Node, x: Blob) -> Blob:
    kind, params = _PLAIN[node.op]
    return context.emit(kind, x, **params)


@op(
    *("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot", "DeepCopy"),
    *("CheckNumerics", "PlaceholderWithDefault"),
    raw=True,
)
def nothing(context: Lowering, node: Node, *operands: Operand | Opaque) -> Sequence[Result]:
    """Values pass through."""
    read_all(node)
    return [x.array if isinstance(x, Constant) else x for x in operands]


@op("EnsureShape", raw=True)
def ensured(context: Lowering, node: Node, x: Operand) -> Result:
    """Extents that are computed before it are known behind it."""
    read_all(node)
    if isinstance(x, Constant):
        return x.array
    shape = node.outputs[0].shape
    if x.shape is None or shape is None or None not in x.shape or len(shape) != len(x.shape):
        return x  # all is known, or the blob has other axes than the value
    pairs = zip(x.shape, x.layout.to_blob(shape), strict=True)
    known = tuple(n if extent is None else extent for extent, n in pairs)
    context.builder.shapes[x.name] = known
    return replace(x, shape=known)


@op("Bitcast", raw=True)
def bitcast(context: Lowering, node: Node, x: Operand) -> Result:
    before, after = node.inputs[0].dtype, node.outputs[0].dtype
    if before != after:
        raise ConversionError(
            f"a bitcast of {before} to {after}, of values that are computed: Core ML's numbers "
            "have no bits to look at"
        )
    return x.array if isinstance(x, Constant) else x


@op("Invert", layouts=ANY)
def invert(context: Lowering, node: Node, x: Blob) -> Blob:
    """Flips all bits: -1 - x for signed integers."""
    least, most = RANGES[node.inputs[0].dtype]
    return affine(context, x, -1.0, -1.0 if least else float(most))


@op("LeftShift", "RightShift", raw=True)
def shift(context: Lowering, node: Node, x: Operand, places: Operand) -> Blob:
    """By a known number of bits: a product with a power of two, or a quotient."""
    factor = Constant("", np.exp2(array_of(node, 1, places).astype(np.float32)))
    if node.op == "LeftShift":
        product = joint(context, "multiplyBroadcastable", x, factor)
        return wrapped(context, product, node.outputs[0].dtype)
    return context.emit("floor", joint(context, "divideBroadcastable", x, factor))


# ---- two operands ----------------------------------------------------------------------

_BINARY = {
    "Sub": "subtractBroadcastable", "Maximum": "maxBroadcastable", "Minimum": "minBroadcastable",
    "RealDiv": "divideBroadcastable", "FloorMod": "modBroadcastable", "Pow": "powBroadcastable",
    "LogicalAnd": "logicalAnd", "LogicalOr": "logicalOr", "Equal": "equal", "NotEqual": "notEqual",
    "Greater": "greaterThan", "GreaterEqual": "greaterEqual", "Less": "lessThan",
    "LessEqual": "lessEqual",
}  # fmt: skip


@op(*_BINARY, raw=True)
def binary(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    if node.inputs[0].dtype == "string":
        raise ConversionError("strings cannot be compared")
    return joint(context, _BINARY[node.op], left, right)


_ABSORBED = {
    "Add": ("addBroadcastable", "shift"),
    "AddV2": ("addBroadcastable", "shift"),
    "Mul": ("multiplyBroadcastable", "factor"),
}


@op(*_ABSORBED, raw=True)
def combined(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """A constant for each channel joins the layer before it, if nothing else reads that layer."""
    kind, role = _ABSORBED[node.op]
    for x, other in ((left, right), (right, left)):
        if isinstance(x, Blob) and isinstance(other, Constant):
            bindings: dict[str, Any] = {role: other.array}
            output = absorbed(context, node, x, **bindings)
            if output is not None:
                return output
    return joint(context, kind, left, right)


@op("BiasAdd", "BiasAddV1", raw=True)
def bias_add(context: Lowering, node: Node, x: Operand, bias: Operand) -> Blob:
    """Adds one number per channel."""
    first = is_channels_first(node)
    if isinstance(x, Blob) and isinstance(bias, Constant):
        spread = (-1, *(1,) * (x.rank - 2)) if first and x.shape is not None else (-1,)
        shift = bias.array.reshape(spread)
        joined = absorbed(context, node, x, shift=shift, channels_first=first)
        if joined is not None:
            return joined
    if not first:
        return joint(context, "addBroadcastable", x, bias)
    blob = maps(context, node, x)
    wide = (
        context.expand(as_blob(context, bias), *range(1, blob.rank - 1)) if blob.rank > 2 else bias
    )
    return joint(context, "addBroadcastable", blob, wide)


def is_integer(node: Node, place: int = 0) -> bool:
    """Whether an input holds integers."""
    return node.inputs[place].dtype.startswith(("int", "uint"))


@op("Div", "TruncateDiv", raw=True)
def div(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """Integers are divided towards zero."""
    quotient = joint(context, "divideBroadcastable", left, right)
    return truncated(context, quotient) if is_integer(node) else quotient


@op("FloorDiv", raw=True)
def floor_div(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    return context.emit("floor", joint(context, "divideBroadcastable", left, right))


@op("Mod", "TruncateMod", raw=True)
def truncate_mod(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """The remainder of a division towards zero."""
    quotient = truncated(context, joint(context, "divideBroadcastable", left, right))
    product = joint(context, "multiplyBroadcastable", quotient, right)
    return joint(context, "subtractBroadcastable", left, product)


@op("DivNoNan", "MulNoNan", "Xdivy", "Xlogy", "Xlog1py", raw=True)
def guarded(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    """0 if the guard is 0: the divisor, the second factor, or the first operand."""
    guard = left if node.op.startswith("X") else right
    zero = joint(context, "equal", guard, Constant("", np.zeros((), np.float32)))
    inner = right
    if node.op == "Xlogy":
        inner = context.emit("unary", as_blob(context, right), type="LOG")
    elif node.op == "Xlog1py":
        inner = context.emit("unary", as_blob(context, right), type="LOG", shift=1.0)
    divides = node.op in ("DivNoNan", "Xdivy")
    kind = "divideBroadcastable" if divides else "multiplyBroadcastable"
    output = joint(context, kind, left, inner)
    return joint(context, "whereBroadcastable", zero, context.constant([0.0]), output)


@op("SquaredDifference", raw=True)
def squared_difference(context: Lowering, node: Node, left: Operand, right: Operand) -> Blob:
    gap = joint(context, "subtractBroadcastable", left, right)
    return joint(context, "multiplyBroadcastable", gap, gap)


@op("Square", layouts=ANY)
def square(context: Lowering, node: Node, x: Blob) -> Blob:
    return joint(context, "multiplyBroadcastable", x, x)


@op("Rsqrt", "Reciprocal", "Inv", layouts=ANY)
def inverse(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML's own inverses add an epsilon; a division does not."""
    root = context.emit("unary", x, type="SQRT") if node.op == "Rsqrt" else x
    return context.layer("divideBroadcastable", context.constant([1.0]), root, layout=x.layout)


@op("Expm1", layouts=ANY)
def expm1(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, context.emit("unary", x, type="EXP"), 1.0, -1.0)


@op("Erfc", layouts=ANY)
def erfc(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, context.emit("erf", x), -1.0, 1.0)


_SPECIAL = {"Erfinv": special.erfinv, "Lgamma": special.lgamma, "Digamma": special.digamma}


@op(*_SPECIAL, layouts=ANY)
def special_function(context: Lowering, node: Node, x: Blob) -> Blob:
    return _SPECIAL[node.op](context, x)


@op("Atan2", raw=True)
def atan2(context: Lowering, node: Node, y: Operand, x: Operand) -> Blob:
    """Uses the arc tangent of the quotient, moved into the quadrant; 0 if both are 0."""
    slope = context.emit("atan", joint(context, "divideBroadcastable", y, x))
    zero = Constant("", np.zeros((), np.float32))
    left = joint(context, "lessThan", x, zero)
    below = joint(context, "lessThan", y, zero)
    turn = joint(context, "multiplyBroadcastable", left, affine(context, below, -2 * np.pi, np.pi))
    moved = joint(context, "addBroadcastable", slope, turn)
    nothing_there = joint(
        context, "logicalAnd", joint(context, "equal", x, zero), joint(context, "equal", y, zero)
    )
    return joint(context, "whereBroadcastable", nothing_there, context.constant([0.0]), moved)


@op("AddN", "AccumulateNV2", raw=True)
def add_n(context: Lowering, node: Node, *operands: Operand) -> Blob:
    for name in ("N", "shape"):
        node.attrs.get(name)
    total = functools.reduce(lambda a, b: joint(context, "addBroadcastable", a, b), operands)
    return as_blob(context, total)


@op("Select", "SelectV2", raw=True)
def select(context: Lowering, node: Node, condition: Operand, x: Operand, y: Operand) -> Blob:
    """In the older op, a vector selects rows."""
    if node.op == "Select" and isinstance(condition, Blob) and condition.rank == 1:
        rank = as_blob(context, x).rank
        if rank > 1 and not condition.is_scalar:
            condition = context.expand(condition, *range(1, rank))
    return joint(context, "whereBroadcastable", condition, x, y)


@op("IsNan", layouts=ANY)
def is_nan(context: Lowering, node: Node, x: Blob) -> Blob:
    """Only NaN is not equal to itself."""
    return context.emit("notEqual", x, x)


@op("IsInf", "IsFinite", layouts=ANY)
def is_finite(context: Lowering, node: Node, x: Blob) -> Blob:
    size = context.emit("unary", x, type="ABS")
    if node.op == "IsInf":
        return context.emit("greaterThan", size, alpha=FLOAT_MAX)
    return context.emit("lessEqual", size, alpha=FLOAT_MAX)


_FLOATS = {"float16", "bfloat16", "float32", "float64"}


@op("Cast", raw=True)
def cast(context: Lowering, node: Node, x: Operand) -> Result:
    """Floats lose their fraction to become integers; a bool is whether a value is not 0.

    Core ML computes in float32, which stands for the shorter floats, too.
    """
    before, after = node.inputs[0].dtype, node.outputs[0].dtype
    node.attrs.get("Truncate")
    blob = as_blob(context, x)
    if after.startswith("complex"):
        return Complex(blob, context.emit("fillLike", blob, value=0.0))
    if after == "bool":
        return blob if before == "bool" else context.emit("notEqual", blob, alpha=0.0)
    if after in _FLOATS and before in {*_FLOATS, *RANGES, "bool"}:
        return blob
    if after in RANGES and before in _FLOATS:
        return wrapped(context, truncated(context, blob), after)
    if after in RANGES and before == "bool":
        return blob
    if after in RANGES and before in RANGES:
        return _cast_integers(context, blob, before, after)
    raise ConversionError(f"a cast from {before} to {after}: Core ML has no such numbers")


def _cast_integers(context: Lowering, x: Blob, before: str, after: str) -> Blob:
    """Numbers that do not fit lose their upper bits, as far as float32 can represent that."""
    least, most = RANGES[before]
    if (RANGES[after][0] <= least and most <= RANGES[after][1]) or least < 0 > RANGES[after][0]:
        return wrapped(context, x, after) if RANGES[after][1] < most else x
    if after in SMALL:
        return wrapped(context, x, after)
    if least == 0:
        return x
    raise ConversionError(
        f"a cast from {before} to {after}: float32 cannot hold what negative numbers become"
    )


# ---- activations -----------------------------------------------------------------------


@op("LeakyRelu", layouts=ANY)
def leaky_relu(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.emit("activation", x, leakyReLU={"alpha": node.attrs.get("alpha", 0.2)})


@op("Selu", layouts=ANY)
def selu(context: Lowering, node: Node, x: Blob) -> Blob:
    output = context.emit("activation", x, ELU={"alpha": 1.6732632423543772})
    return affine(context, output, 1.0507009873554805)


@op("ClipByValue", raw=True)
def clip_by_value(context: Lowering, node: Node, x: Operand, least: Operand, most: Operand) -> Blob:
    raised = joint(context, "maxBroadcastable", x, least)
    return joint(context, "minBroadcastable", raised, most)


@op("L2Loss", layouts=ANY)
def l2_loss(context: Lowering, node: Node, x: Blob) -> Blob:
    total = context.layer("reduceSumSquare", x, reduceAll=True, keepDims=False)
    return affine(context, scalar(total), 0.5)
