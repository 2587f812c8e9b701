"""Arithmetic and comparisons, value by value."""

from __future__ import annotations

import functools

from mlferry.layers.params import Params
from mlferry.layers.writers import V, Writer, in_both

_FUNCTIONS = (
    *("ceil", "floor", "round", "sign", "erf", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "atanh"),
)
_OPERATORS = {
    "add": "add",
    "addBroadcastable": "add",
    "multiply": "mul",
    "multiplyBroadcastable": "mul",
    "max": "maximum",
    "maxBroadcastable": "maximum",
    "min": "minimum",
    "minBroadcastable": "minimum",
    "subtractBroadcastable": "sub",
}
_FRACTIONS = {"divideBroadcastable": "real_div", "powBroadcastable": "pow"}
_LOGICAL = {"logicalOr": "logical_or", "logicalXor": "logical_xor", "logicalAnd": "logical_and"}
_COMPARISONS = {
    "equal": "equal",
    "notEqual": "not_equal",
    "lessThan": "less",
    "lessEqual": "less_equal",
    "greaterThan": "greater",
    "greaterEqual": "greater_equal",
}


@in_both(*_FUNCTIONS)
def function(writer: Writer[V], params: Params, x: V) -> V:
    return writer.unary(params.kind, writer.as_float(x))


@in_both(*_OPERATORS)
def operator(writer: Writer[V], params: Params, *inputs: V) -> V:
    """With one input, `add` and `multiply` take `alpha` as the second operand."""
    name = _OPERATORS[params.kind]
    if len(inputs) == 1 and params.kind in ("add", "multiply"):
        return writer.binary(name, inputs[0], params.alpha)
    return functools.reduce(functools.partial(writer.binary, name), inputs)


@in_both(*_FRACTIONS)
def fraction(writer: Writer[V], params: Params, left: V, right: V) -> V:
    one, two = writer.as_float(left), writer.as_float(right)
    return writer.binary(_FRACTIONS[params.kind], one, two)


@in_both(*_LOGICAL)
def logical(writer: Writer[V], params: Params, left: V, right: V) -> V:
    return writer.binary(_LOGICAL[params.kind], left, right)


@in_both("logicalNot")
def logical_not(writer: Writer[V], params: Params, x: V) -> V:
    return writer.unary("logical_not", x)


@in_both(*_COMPARISONS)
def comparison(writer: Writer[V], params: Params, left: V, *right: V) -> V:
    """The second operand is `alpha` if there is one input."""
    other = right[0] if right else writer.number(params.alpha)
    return writer.binary(_COMPARISONS[params.kind], left, other)
