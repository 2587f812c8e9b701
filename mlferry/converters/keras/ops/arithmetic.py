"""Elementwise `keras.ops` of one value, or of two values that broadcast."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

from mlferry.converters import special
from mlferry.converters.elementwise import FLOAT_MAX
from mlferry.converters.frontend import Converter
from mlferry.converters.graph import Attributes, Node
from mlferry.converters.keras.calls import call_of
from mlferry.converters.keras.ops.functions import (
    ELEMENTWISE,
    constant,
    function,
    is_integer,
    operands,
)
from mlferry.converters.keras.ops.registry import OPS
from mlferry.converters.keras.parts import snake_case
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, truncated
from mlferry.converters.values import UNFLATTENED, Argument, Blob
from mlferry.errors import ConversionError

_PAIR = {"x": "x1", "y": "x2"}
_OPERATOR = {"self": "x1", "other": "x2"}


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
    return context.emit("unary", x, type=kind, **params)


def _pairwise(context: Lowering, kind: str, x1: Argument, x2: Argument) -> Blob:
    return context.emit(f"{kind}Broadcastable", *operands(context, x1, x2))


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
    if pair is None:
        return _pairwise(context, "add", x1, x2)
    return affine(context, pair[0], 1.0, pair[1])


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


@function("DivideNoNan", tf={"math.divide_no_nan": _PAIR}, layouts=ELEMENTWISE)
def divide_no_nan(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """The quotient, or 0 where the divisor is 0."""
    left, right = operands(context, x1, x2)
    zero = context.emit("equal", right, alpha=0.0)
    safe = context.add(right, zero)
    nonzero = affine(context, zero, -1.0, 1.0)
    quotient = context.divide(left, safe)
    return context.multiply(quotient, nonzero)


@function("Mod", tf={"math.floormod": _PAIR, "math.mod": _PAIR}, layouts=ELEMENTWISE)
def mod(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """x1 - x2 * floor(x1 / x2)"""
    left, right = operands(context, x1, x2)
    whole = context.emit("floorDivBroadcastable", left, right)
    product = context.multiply(whole, right)
    return context.subtract(left, product)


@function("Power", tf={"math.pow": _PAIR, "pow": _PAIR}, layouts=ELEMENTWISE)
def power(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    if isinstance(x1, Blob) and _is_number(x2):
        if float(x2) == 2:
            return context.emit("multiply", x1, x1)
        return unary(context, x1, "POWER", alpha=float(x2))
    return _pairwise(context, "pow", x1, x2)


@function("Arctan2", tf={"math.atan2": {"y": "x1", "x": "x2"}}, layouts=ELEMENTWISE)
def arctan2(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """Uses the arc tangent of the quotient, moved into the quadrant; 0 if both are 0.

    The tangent of half the angle, y / (r + x), would lose its digits where x is negative.
    """
    y, x = operands(context, x1, x2)
    zeros = [context.emit("equal", value, alpha=0.0) for value in (x, y)]
    nothing_there = context.multiply(*zeros)
    safe = context.add(x, nothing_there)
    slope = context.emit("atan", context.divide(y, safe))
    left, below = (context.emit("lessThan", value, alpha=0.0) for value in (x, y))
    turn = affine(context, below, -2 * float(np.pi), float(np.pi))
    moved = context.multiply(left, turn)
    return context.add(slope, moved)


@function("Logaddexp", layouts=ELEMENTWISE)
def logaddexp(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    """max + softplus(-|x1 - x2|)"""
    left, right = operands(context, x1, x2)
    most = context.maximum(left, right)
    apart = unary(context, context.subtract(left, right), "ABS")
    rest = context.emit("activation", affine(context, apart, -1.0), softplus={})
    return context.add(most, rest)


@function("SquaredDifference", tf={"math.squared_difference": _PAIR}, layouts=ELEMENTWISE)
def squared_difference(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
    apart = subtract(context, node, x1, x2)
    return context.emit("multiply", apart, apart)


# ---- one layer of two values, and comparisons with a number -----------------------------

# The names in `keras.ops`, and those in TensorFlow.
_TWO: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "divideBroadcastable": (
        ("Divide", "TrueDivide"),
        ("math.divide", "divide", "math.truediv", "truediv"),
    ),
    "floorDivBroadcastable": (("FloorDivide",), ("math.floordiv", "floor_div")),
    "maxBroadcastable": (("Maximum", "Fmax"), ("math.maximum", "maximum")),
    "minBroadcastable": (("Minimum", "Fmin"), ("math.minimum", "minimum")),
    "logicalAnd": (("LogicalAnd",), ("math.logical_and", "logical_and")),
    "logicalOr": (("LogicalOr",), ("math.logical_or", "logical_or")),
    "logicalXor": (("LogicalXor",), ()),
    "equal": (("Equal",), ("math.equal", "equal", "__operators__.eq")),
    "notEqual": (("NotEqual",), ("math.not_equal", "not_equal", "__operators__.ne")),
    "lessThan": (("Less",), ("math.less", "less")),
    "lessEqual": (("LessEqual",), ("math.less_equal", "less_equal")),
    "greaterThan": (("Greater",), ("math.greater", "greater")),
    "greaterEqual": (("GreaterEqual",), ("math.greater_equal", "greater_equal")),
}
_COMPARISONS = frozenset(
    {"equal", "notEqual", "lessThan", "lessEqual", "greaterThan", "greaterEqual"}
)


def _of_two(kind: str) -> Converter:
    def convert(context: Lowering, node: Node, x1: Argument, x2: Argument) -> Blob:
        if kind in _COMPARISONS and isinstance(x1, Blob) and _is_number(x2):
            return context.emit(kind, x1, alpha=float(x2))
        return context.emit(kind, *operands(context, x1, x2))

    return convert


for _kind, (_names, _theirs) in _TWO.items():
    _renamed = {name: _OPERATOR if "operators" in name else _PAIR for name in _theirs}
    function(*_names, tf=_renamed, layouts=ELEMENTWISE)(_of_two(_kind))


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
    return context.where(*operands(context, condition, x1, x2))


@function("Isnan", layouts=ELEMENTWISE)
def isnan(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.emit("notEqual", x, x)


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
        return context.emit("equal", left, right)
    gap = unary(context, context.subtract(left, right), "ABS")
    allowed = affine(context, unary(context, right, "ABS"), float(rtol), float(atol))
    output = context.emit("lessEqual", gap, allowed)
    if not equal_nan:
        return output
    missing = [context.emit("notEqual", x, x) for x in (left, right)]
    return context.emit("logicalOr", output, context.emit("logicalAnd", *missing))


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
    upper = FLOAT_MAX if posinf is None else float(posinf)
    lower = -FLOAT_MAX if neginf is None else float(neginf)
    for where, number in (
        (context.emit("notEqual", x, x), float(nan)),
        (context.emit("greaterThan", x, alpha=FLOAT_MAX), upper),
        (context.emit("lessThan", x, alpha=-FLOAT_MAX), lower),
    ):
        x = context.where(where, constant(context, number, x), x)
    return x


# ---- one value -------------------------------------------------------------------------


@function("Square", tf={"math.square": {}, "square": {}}, layouts=ELEMENTWISE)
def square(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.emit("multiply", x, x)


@function("Rsqrt", tf={"math.rsqrt": {}}, layouts=ELEMENTWISE)
def rsqrt(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.divide(*operands(context, 1.0, unary(context, x, "SQRT")))


@function("Reciprocal", tf={"math.reciprocal": {}}, layouts=ELEMENTWISE)
def reciprocal(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.divide(*operands(context, 1.0, x))


@function("Expm1", tf={"math.expm1": {}}, layouts=ELEMENTWISE)
def expm1(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, unary(context, x, "EXP"), 1.0, -1.0)


_BASES = {"Log2": 2.0, "Log10": 10.0}


@function(*_BASES, layouts=ELEMENTWISE)
def log_of_base(context: Lowering, node: Node, x: Blob) -> Blob:
    base = _BASES[node.op.removeprefix("keras.ops.")]
    return affine(context, unary(context, x, "LOG"), float(1 / np.log(base)))


# One layer of one value: the names in `keras.ops` and in `tf`, its kind and its parameters.
_ONE: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "Sqrt": (("math.sqrt", "sqrt"), "unary", {"type": "SQRT"}),
    "Exp": (("math.exp", "exp"), "unary", {"type": "EXP"}),
    "Log": (("math.log",), "unary", {"type": "LOG"}),
    "Log1p": (("math.log1p",), "unary", {"type": "LOG", "shift": 1.0}),
    "Absolute": (("math.abs", "abs"), "unary", {"type": "ABS"}),
    "Abs": ((), "unary", {"type": "ABS"}),
    "Fabs": ((), "unary", {"type": "ABS"}),
    "Exp2": ((), "exp2", {}),
    "LogicalNot": (("math.logical_not", "logical_not"), "logicalNot", {}),
    "Negative": (("math.negative", "negative"), "activation", {"linear": {"alpha": -1.0}}),
}
_LAYERS = {
    "Sign": "sign", "Floor": "floor", "Ceil": "ceil", "Sin": "sin", "Cos": "cos", "Tan": "tan",
    "Arcsin": "asin", "Arccos": "acos", "Arctan": "atan", "Sinh": "sinh", "Cosh": "cosh",
    "Tanh": "tanh", "Arcsinh": "asinh", "Arccosh": "acosh", "Arctanh": "atanh", "Erf": "erf",
}  # fmt: skip
_ONE |= {name: ((f"math.{kind}",), kind, {}) for name, kind in _LAYERS.items()}


def _of_one(kind: str, params: dict[str, Any]) -> Converter:
    def convert(context: Lowering, node: Node, x: Blob) -> Blob:
        return context.emit(kind, x, **params)

    return convert


for _name, (_theirs, _kind, _params) in _ONE.items():
    function(_name, tf={theirs: {} for theirs in _theirs}, layouts=ELEMENTWISE)(
        _of_one(_kind, _params)
    )


@function("Erfc", layouts=ELEMENTWISE)
def erfc(context: Lowering, node: Node, x: Blob) -> Blob:
    return affine(context, context.emit("erf", x), -1.0, 1.0)


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
        return context.emit("round", x)
    factor = 10.0**decimals
    return affine(context, context.emit("round", affine(context, x, factor)), 1 / factor)


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
        return context.emit("notEqual", x, alpha=0.0)
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
    return context.emit("fillLike", x, value=float(fill_value))


# ---- activations and others that are layers, too ---------------------------------------

_ACTIVATIONS = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Glu", "Silu", "HardSilu"),
    *("Sigmoid", "SparseSigmoid", "LogSigmoid", "HardSigmoid", "Softplus", "SparsePlus"),
    *("Softsign", "SoftShrink", "TanhShrink", "HardShrink", "HardTanh", "Squareplus"),
    *("Threshold", "Softmax", "LogSoftmax", "Sparsemax"),
)
_TF_ACTIVATIONS = (
    *("nn.relu", "nn.relu6", "nn.leaky_relu", "nn.elu", "nn.selu", "nn.gelu", "nn.silu"),
    *("sigmoid", "nn.sigmoid", "math.sigmoid", "tanh", "nn.tanh", "math.tanh"),
    *("nn.softplus", "math.softplus", "nn.softsign", "nn.softmax", "nn.log_softmax", "nn.swish"),
)


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

for _name in _ACTIVATIONS:
    OPS.register(f"keras.ops.{_name}", layouts=UNFLATTENED)(_activation(snake_case(_name)))
for _name in _TF_ACTIVATIONS:
    if f"tf.{_name}" not in OPS:
        _kind = _name.removeprefix("nn.").removeprefix("math.").replace("swish", "silu")
        OPS.register(f"tf.{_name}", layouts=UNFLATTENED)(_activation(_kind))
