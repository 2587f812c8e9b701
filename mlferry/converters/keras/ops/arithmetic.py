"""Elementwise `keras.ops` of one value, or of two values that broadcast."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

from mlferry.converters import special
from mlferry.converters.frontend import Converter
from mlferry.converters.graph import Attributes, Node
from mlferry.converters.keras.calls import call_of
from mlferry.converters.keras.ops.functions import (
    ELEMENTWISE,
    constant,
    function,
    is_integer,
    layer,
    operands,
)
from mlferry.converters.keras.ops.registry import OPS
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, truncated
from mlferry.converters.values import UNFLATTENED, Argument, Blob
from mlferry.errors import ConversionError

_PAIR = {"x": "x1", "y": "x2"}


def _is_number(value: Argument) -> TypeGuard[float]:
    return not isinstance(value, Blob) and np.ndim(value) == 0


def _with_number(x1: Argument, x2: Argument) -> tuple[Blob, float] | None:
    """The blob and the number, if the two operands are one of each."""
    if isinstance(x1, Blob) and _is_number(x2):
        return x1, float(x2)
    if isinstance(x2, Blob) and _is_number(x1):
        return x2, float(x1)
    return None


def unary(context: Lowering, x: Blob, kind: str, **params: float) -> Blob:
    """A `unary` layer."""
    return layer(context, "unary", x, type=kind, **params)


def _pairwise(context: Lowering, kind: str, x1: Argument, x2: Argument) -> Blob:
    return layer(context, f"{kind}Broadcastable", *operands(context, x1, x2))


@function(
    "Add",
    tf={
        "__operators__.add": _PAIR,
        "math.add": _PAIR,
        "add": _PAIR,
        "nn.bias_add": {"value": "x1", "bias": "x2"},
    },
    layouts=ELEMENTWISE,
)
def add(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    pair = _with_number(x1, x2)
    return (
        _pairwise(context, "add", x1, x2)
        if pair is None
        else affine(context, pair[0], 1.0, pair[1])
    )


@function("Subtract", tf={"math.subtract": _PAIR, "subtract": _PAIR}, layouts=ELEMENTWISE)
def subtract(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    if isinstance(x1, Blob) and _is_number(x2):
        return affine(context, x1, 1.0, -float(x2))
    if isinstance(x2, Blob) and _is_number(x1):
        return affine(context, x2, -1.0, float(x1))
    return _pairwise(context, "subtract", x1, x2)


@function("Multiply", tf={"math.multiply": _PAIR, "multiply": _PAIR}, layouts=ELEMENTWISE)
def multiply(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    pair = _with_number(x1, x2)
    return _pairwise(context, "multiply", x1, x2) if pair is None else affine(context, *pair)


@function(
    "Divide",
    "TrueDivide",
    tf={"math.divide": _PAIR, "divide": _PAIR, "math.truediv": _PAIR, "truediv": _PAIR},
    layouts=ELEMENTWISE,
)
def divide(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _pairwise(context, "divide", x1, x2)


@function("DivideNoNan", tf={"math.divide_no_nan": _PAIR}, layouts=ELEMENTWISE)
def divide_no_nan(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """The quotient, or 0 where the divisor is 0."""
    left, right = operands(context, x1, x2)
    zero = layer(context, "equal", right, alpha=0.0)
    safe = layer(context, "addBroadcastable", right, zero)
    nonzero = affine(context, zero, -1.0, 1.0)
    quotient = layer(context, "divideBroadcastable", left, safe)
    return layer(context, "multiplyBroadcastable", quotient, nonzero)


@function("FloorDivide", tf={"math.floordiv": _PAIR, "floor_div": _PAIR}, layouts=ELEMENTWISE)
def floor_divide(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _pairwise(context, "floorDiv", x1, x2)


@function("Mod", tf={"math.floormod": _PAIR, "math.mod": _PAIR}, layouts=ELEMENTWISE)
def mod(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """x1 - x2 * floor(x1 / x2)"""
    left, right = operands(context, x1, x2)
    whole = layer(context, "floorDivBroadcastable", left, right)
    product = layer(context, "multiplyBroadcastable", whole, right)
    return layer(context, "subtractBroadcastable", left, product)


@function("Power", tf={"math.pow": _PAIR, "pow": _PAIR}, layouts=ELEMENTWISE)
def power(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    if isinstance(x1, Blob) and _is_number(x2):
        if float(x2) == 2:
            return layer(context, "multiply", x1, x1)
        return unary(context, x1, "POWER", alpha=float(x2))
    return _pairwise(context, "pow", x1, x2)


@function("Maximum", "Fmax", tf={"math.maximum": _PAIR, "maximum": _PAIR}, layouts=ELEMENTWISE)
def maximum(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _pairwise(context, "max", x1, x2)


@function("Minimum", "Fmin", tf={"math.minimum": _PAIR, "minimum": _PAIR}, layouts=ELEMENTWISE)
def minimum(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _pairwise(context, "min", x1, x2)


@function("Arctan2", tf={"math.atan2": {"y": "x1", "x": "x2"}}, layouts=ELEMENTWISE)
def arctan2(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """Uses the arc tangent of the quotient, moved into the quadrant; 0 if both are 0.

    The tangent of half the angle, y / (r + x), would lose its digits where x is negative.
    """
    y, x = operands(context, x1, x2)
    zeros = [layer(context, "equal", value, alpha=0.0) for value in (x, y)]
    nothing_there = layer(context, "multiplyBroadcastable", *zeros)
    safe = layer(context, "addBroadcastable", x, nothing_there)
    slope = layer(context, "atan", layer(context, "divideBroadcastable", y, safe))
    left, below = (layer(context, "lessThan", value, alpha=0.0) for value in (x, y))
    turn = affine(context, below, -2 * float(np.pi), float(np.pi))
    moved = layer(context, "multiplyBroadcastable", left, turn)
    return layer(context, "addBroadcastable", slope, moved)


@function("Logaddexp", layouts=ELEMENTWISE)
def logaddexp(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """max + softplus(-|x1 - x2|)"""
    left, right = operands(context, x1, x2)
    most = layer(context, "maxBroadcastable", left, right)
    apart = unary(context, layer(context, "subtractBroadcastable", left, right), "ABS")
    rest = layer(context, "activation", affine(context, apart, -1.0), softplus={})
    return layer(context, "addBroadcastable", most, rest)


@function("SquaredDifference", tf={"math.squared_difference": _PAIR}, layouts=ELEMENTWISE)
def squared_difference(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    apart = subtract(context, node, x1, x2)
    return layer(context, "multiply", apart, apart)


# ---- comparisons and logic -------------------------------------------------------------


def _compared(context: Lowering, kind: str, x1: Argument, x2: Argument) -> Blob:
    if isinstance(x1, Blob) and _is_number(x2):
        return layer(context, kind, x1, alpha=float(x2))
    return layer(context, kind, *operands(context, x1, x2))


@function(
    "Equal",
    tf={"math.equal": _PAIR, "equal": _PAIR, "__operators__.eq": {"self": "x1", "other": "x2"}},
    layouts=ELEMENTWISE,
)
def equal(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _compared(context, "equal", x1, x2)


@function(
    "NotEqual",
    tf={
        "math.not_equal": _PAIR,
        "not_equal": _PAIR,
        "__operators__.ne": {"self": "x1", "other": "x2"},
    },
    layouts=ELEMENTWISE,
)
def not_equal(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _compared(context, "notEqual", x1, x2)


@function("Less", tf={"math.less": _PAIR, "less": _PAIR}, layouts=ELEMENTWISE)
def less(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _compared(context, "lessThan", x1, x2)


@function("LessEqual", tf={"math.less_equal": _PAIR, "less_equal": _PAIR}, layouts=ELEMENTWISE)
def less_equal(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _compared(context, "lessEqual", x1, x2)


@function("Greater", tf={"math.greater": _PAIR, "greater": _PAIR}, layouts=ELEMENTWISE)
def greater(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _compared(context, "greaterThan", x1, x2)


@function(
    "GreaterEqual", tf={"math.greater_equal": _PAIR, "greater_equal": _PAIR}, layouts=ELEMENTWISE
)
def greater_equal(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return _compared(context, "greaterEqual", x1, x2)


@function("LogicalAnd", tf={"math.logical_and": _PAIR, "logical_and": _PAIR}, layouts=ELEMENTWISE)
def logical_and(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return layer(context, "logicalAnd", *operands(context, x1, x2))


@function("LogicalOr", tf={"math.logical_or": _PAIR, "logical_or": _PAIR}, layouts=ELEMENTWISE)
def logical_or(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return layer(context, "logicalOr", *operands(context, x1, x2))


@function("LogicalXor", layouts=ELEMENTWISE)
def logical_xor(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    return layer(context, "logicalXor", *operands(context, x1, x2))


@function("LogicalNot", tf={"math.logical_not": {}, "logical_not": {}}, layouts=ELEMENTWISE)
def logical_not(context: Lowering, node: Node, x: Blob) -> Blob:
    return layer(context, "logicalNot", x)


@function("Where", tf={"where": {"x": "x1", "y": "x2"}}, layouts=ELEMENTWISE)
def where(
    context: Lowering,
    node: Node,
    condition: Argument,
    x1: Argument | None = None,
    x2: Argument | None = None,
) -> Blob:
    if x1 is None or x2 is None:
        raise ConversionError("where of a condition alone: the number of places is not fixed")
    return layer(context, "whereBroadcastable", *operands(context, condition, x1, x2))


@function("Isnan", layouts=ELEMENTWISE)
def isnan(context: Lowering, node: Node, x: Blob) -> Blob:
    return layer(context, "notEqual", x, x)


@function("Isclose", layouts=ELEMENTWISE)
def isclose(
    context: Lowering,
    node: Node,
    x1: Argument,
    x2: Argument,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Blob:
    """|x1 - x2| <= atol + rtol * |x2|; integers are compared directly."""
    left, right = operands(context, x1, x2)
    arrays = [x for x in (x1, x2) if not isinstance(x, Blob)]
    if all(map(_is_whole, arrays)) and all(is_integer(node, i) for i in range(len(node.inputs))):
        return layer(context, "equal", left, right)
    gap = unary(context, layer(context, "subtractBroadcastable", left, right), "ABS")
    allowed = affine(context, unary(context, right, "ABS"), float(rtol), float(atol))
    output = layer(context, "lessEqual", gap, allowed)
    if not equal_nan:
        return output
    missing = [layer(context, "notEqual", x, x) for x in (left, right)]
    return layer(context, "logicalOr", output, layer(context, "logicalAnd", *missing))


def _is_whole(value: object) -> bool:
    return np.asarray(value).dtype.kind in "iu"


@function("NanToNum", layouts=ELEMENTWISE)
def nan_to_num(
    context: Lowering,
    node: Node,
    x: Blob,
    nan: float = 0.0,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Blob:
    """By default, infinity becomes the largest number of float32."""
    if is_integer(node):
        return x
    upper = _LARGEST if posinf is None else float(posinf)
    lower = -_LARGEST if neginf is None else float(neginf)
    for where, number in (
        (layer(context, "notEqual", x, x), float(nan)),
        (layer(context, "greaterThan", x, alpha=_LARGEST), upper),
        (layer(context, "lessThan", x, alpha=-_LARGEST), lower),
    ):
        x = layer(context, "whereBroadcastable", where, constant(context, number, x), x)
    return x


_LARGEST = float(np.finfo(np.float32).max)


# ---- one value -------------------------------------------------------------------------


@function("Square", tf={"math.square": {}, "square": {}}, layouts=ELEMENTWISE)
def square(context: Lowering, node: Node, x: Blob) -> Blob:
    return layer(context, "multiply", x, x)


@function("Sqrt", tf={"math.sqrt": {}, "sqrt": {}}, layouts=ELEMENTWISE)
def sqrt(context: Lowering, node: Node, x: Blob) -> Blob:
    return unary(context, x, "SQRT")


@function("Rsqrt", tf={"math.rsqrt": {}}, layouts=ELEMENTWISE)
def rsqrt(context: Lowering, node: Node, x: Blob) -> Blob:
    return layer(context, "divideBroadcastable", *operands(context, 1.0, unary(context, x, "SQRT")))


@function("Reciprocal", tf={"math.reciprocal": {}}, layouts=ELEMENTWISE)
def reciprocal(context: Lowering, node: Node, x: Blob) -> Blob:
    return layer(context, "divideBroadcastable", *operands(context, 1.0, x))


@function("Exp", tf={"math.exp": {}, "exp": {}}, layouts=ELEMENTWISE)
def exp(context: Lowering, node: Node, x: Blob) -> Blob:
    return unary(context, x, "EXP")


@function("Exp2", layouts=ELEMENTWISE)
def exp2(context: Lowering, node: Node, x: Blob) -> Blob:
    return layer(context, "exp2", x)


@function("Expm1", tf={"math.expm1": {}}, layouts=ELEMENTWISE)
def expm1(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, unary(context, x, "EXP"), 1.0, -1.0)


def _log(context: Lowering, x: Blob, base: float = np.e, shift: float = 0.0) -> Blob:
    output = unary(context, x, "LOG", shift=shift)
    return output if base == np.e else affine(context, output, float(1 / np.log(base)))


@function("Log", tf={"math.log": {}}, layouts=ELEMENTWISE)
def log(context: Lowering, node: Node, x: Blob) -> Blob:
    return _log(context, x)


@function("Log2", layouts=ELEMENTWISE)
def log2(context: Lowering, node: Node, x: Blob) -> Blob:
    return _log(context, x, 2.0)


@function("Log10", layouts=ELEMENTWISE)
def log10(context: Lowering, node: Node, x: Blob) -> Blob:
    return _log(context, x, 10.0)


@function("Log1p", tf={"math.log1p": {}}, layouts=ELEMENTWISE)
def log1p(context: Lowering, node: Node, x: Blob) -> Blob:
    return _log(context, x, shift=1.0)


@function("Absolute", "Abs", "Fabs", tf={"math.abs": {}, "abs": {}}, layouts=ELEMENTWISE)
def absolute(context: Lowering, node: Node, x: Blob) -> Blob:
    return unary(context, x, "ABS")


@function("Negative", tf={"math.negative": {}, "negative": {}}, layouts=ELEMENTWISE)
def negative(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, x, -1.0)


_LAYERS = {
    "Sign": "sign", "Floor": "floor", "Ceil": "ceil", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Arcsin": "asin", "Arccos": "acos", "Arctan": "atan", "Sinh": "sinh", "Cosh": "cosh",
    "Tanh": "tanh", "Arcsinh": "asinh", "Arccosh": "acosh", "Arctanh": "atanh", "Erf": "erf",
}  # fmt: skip


def _plain(kind: str) -> Converter:
    def convert(context: Lowering, node: Node, x: Blob) -> Blob:
        return layer(context, kind, x)

    return convert


for _name, _kind in _LAYERS.items():
    function(_name, tf={f"math.{_kind}": {}}, layouts=ELEMENTWISE)(_plain(_kind))


@function("Erfc", layouts=ELEMENTWISE)
def erfc(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, layer(context, "erf", x), -1.0, 1.0)


@function("Erfinv", tf={"math.erfinv": {}}, layouts=ELEMENTWISE)
def erfinv(context: Lowering, node: Node, x: Blob) -> Blob:
    return special.erfinv(context, x)


@function("Trunc", layouts=ELEMENTWISE)
def trunc(context: Lowering, node: Node, x: Blob) -> Blob:
    """Rounds towards 0."""
    return truncated(context, x)


@function("Round", tf={"math.round": {}, "round": {}}, layouts=ELEMENTWISE)
def round_(context: Lowering, node: Node, x: Blob, decimals: int = 0) -> Blob:
    """Halves are rounded to even."""
    if not decimals:
        return layer(context, "round", x)
    factor = 10.0**decimals
    return affine(context, layer(context, "round", affine(context, x, factor)), 1 / factor)


@function(
    "Clip",
    tf={"clip_by_value": {"t": "x", "clip_value_min": "x_min", "clip_value_max": "x_max"}},
    layouts=ELEMENTWISE,
)
def clip(
    context: Lowering,
    node: Node,
    x: Blob,
    x_min: Argument | None = None,
    x_max: Argument | None = None,
) -> Blob:
    for value, kind in ((x_min, "max"), (x_max, "min")):
        if value is not None:
            x = _pairwise(context, kind, x, value)
    return x


@function(
    "StopGradient",
    "Copy",
    "Real",
    tf={"stop_gradient": {"input": "x"}, "identity": {"input": "x"}},
    layouts=ELEMENTWISE,
)
def stop_gradient(
    context: Lowering, node: Node, x: Blob | None = None, variable: object = None
) -> Blob:
    result = variable if x is None else x
    if not isinstance(result, Blob):
        raise ConversionError("a function of numbers alone")
    return result


@function("Cast", "SaturateCast", tf={"cast": {}}, layouts=ELEMENTWISE)
def cast(context: Lowering, node: Node, x: Blob, dtype: str) -> Blob:
    """Casts to integers by dropping the fraction, and to booleans by comparing with 0."""
    target = str(dtype)
    if target == "bool":
        return layer(context, "notEqual", x, alpha=0.0)
    whole = node.inputs[0].dtype == "bool" or is_integer(node)
    if target.startswith(("int", "uint")) and not whole:
        return truncated(context, x)
    return x


@function("ConvertToTensor", tf={"convert_to_tensor": {"value": "x"}}, layouts=ELEMENTWISE)
def convert_to_tensor(
    context: Lowering,
    node: Node,
    x: Blob,
    dtype: str | None = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
) -> Blob:
    return x if dtype is None else cast(context, node, x, dtype)


@function(
    "OnesLike",
    "ZerosLike",
    "FullLike",
    tf={"ones_like": {"input": "x"}, "zeros_like": {"input": "x"}},
    layouts=ELEMENTWISE,
)
def full_like(
    context: Lowering,
    node: Node,
    x: Blob,
    fill_value: float | None = None,
    dtype: str | None = None,
) -> Blob:
    if fill_value is None:
        fill_value = 1.0 if "nes" in node.op else 0.0
    return layer(context, "fillLike", x, value=float(fill_value))


# ---- activations and others that are layers, too ---------------------------------------

_ACTIVATIONS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "SparseSigmoid": "sparse_sigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "SoftShrink": "soft_shrink",
    "SparsePlus": "sparse_plus", "Silu": "silu", "Squareplus": "squareplus",
    "LogSigmoid": "log_sigmoid", "LeakyRelu": "leaky_relu", "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu", "Elu": "elu", "Selu": "selu", "Gelu": "gelu", "Celu": "celu",
    "Glu": "glu", "TanhShrink": "tanh_shrink", "HardTanh": "hard_tanh",
    "HardShrink": "hard_shrink", "Threshold": "threshold", "Softmax": "softmax",
    "LogSoftmax": "log_softmax", "Sparsemax": "sparsemax",
}  # fmt: skip
_TF_ACTIVATIONS = {
    "nn.relu": "relu", "nn.relu6": "relu6", "nn.sigmoid": "sigmoid", "math.sigmoid": "sigmoid",
    "sigmoid": "sigmoid", "nn.tanh": "tanh", "tanh": "tanh", "math.tanh": "tanh",
    "nn.softplus": "softplus", "math.softplus": "softplus", "nn.softsign": "softsign",
    "nn.silu": "silu", "nn.swish": "silu", "nn.elu": "elu", "nn.selu": "selu", "nn.gelu": "gelu",
    "nn.leaky_relu": "leaky_relu", "nn.softmax": "softmax", "nn.log_softmax": "log_softmax",
}  # fmt: skip


def _activation(name: str) -> Any:
    def convert(context: Lowering, node: Node, *inputs: Blob) -> Any:
        entry = OPS.find(name, context.graph.version)
        options = dict(node.attrs)
        for key, value in call_of(node).kwargs.items():
            node.arguments.get(key)
            options[_RENAMED.get(key, key)] = value
        if node.op.startswith("tf.nn.gelu"):
            options.setdefault("approximate", False)
        assert entry is not None
        inner = Node(name, node.name, node.inputs, node.outputs, Attributes(options))
        return entry.value(context, inner, inputs[0])

    return convert


_RENAMED = {"features": "x", "logits": "x"}

for _name, _kind in _ACTIVATIONS.items():
    OPS.register(f"keras.ops.{_name}", layouts=UNFLATTENED)(_activation(_kind))
for _name, _kind in _TF_ACTIVATIONS.items():
    if f"tf.{_name}" not in OPS:
        OPS.register(f"tf.{_name}", layouts=UNFLATTENED)(_activation(_kind))
