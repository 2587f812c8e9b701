"""Layers whose output has the shape of their input, or of their inputs broadcast."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Shape, broadcast, rule

UNARY = (
    "activation", "unary", "clip", "ceil", "floor", "sign", "round", "exp2", "sin", "cos", "tan",
    "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "gelu",
    "logicalNot", "clampedReLU",
)  # fmt: skip
N_ARY = (
    "add", "multiply", "average", "max", "min", "addBroadcastable", "multiplyBroadcastable",
    "maxBroadcastable", "minBroadcastable", "equal", "notEqual", "lessThan", "lessEqual",
    "greaterThan", "greaterEqual",
)  # fmt: skip
BINARY = (
    "subtractBroadcastable", "divideBroadcastable", "floorDivBroadcastable", "modBroadcastable",
    "powBroadcastable", "logicalOr", "logicalXor", "logicalAnd",
)  # fmt: skip


@rule(*UNARY)
def unary(p: Params, shape: Shape) -> list[Shape]:
    return [shape]


@rule(*N_ARY)
def n_ary(p: Params, *shapes: Shape) -> list[Shape]:
    if not shapes:
        raise SpecError(f"a {p.kind} layer needs an input")
    return [broadcast(*shapes)]


@rule(*BINARY)
def binary(p: Params, left: Shape, right: Shape) -> list[Shape]:
    return [broadcast(left, right)]
