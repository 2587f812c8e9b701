"""Activations written as several operations, for which there is one op."""

from __future__ import annotations

import math

import numpy as np

from mlferry.programs.graph import Operation, Value, constant, string
from mlferry.programs.passes.rewriting import Rewriter, known_at, matches, other_operand, value_at


def sigmoid_weighted(rewriter: Rewriter, operation: Operation) -> bool:
    """x sigmoid(x) is `silu`."""
    x = value_at(operation, "x")
    if operation.op != "sigmoid" or x is None:
        return False
    last = rewriter.follows(operation, "mul")
    if last is None or other_operand(last, operation.outputs[0]) is not x:
        return False
    rewriter.set(last, "silu", x=x)
    return True


def gaussian_weighted(rewriter: Rewriter, operation: Operation) -> bool:
    """0.5 x (1 + erf(x / sqrt(2))), its factors in any order, is `gelu`."""
    if operation.op != "erf":
        return False
    inner = value_at(operation, "x")
    x = None if inner is None else _divided_by_root(rewriter, inner)
    more = rewriter.follows(operation, "add")
    if x is None or more is None or not _is_number(more, operation.outputs[0], 1):
        return False
    last, value, halved = more, more.outputs[0], False
    weighted = False
    for _ in range(2):
        following = rewriter.follows(last, "mul")
        if following is None:
            return False
        other = other_operand(following, value)
        if other is x and not weighted:
            weighted = True
        elif other is not None and _is_half_of(other, x) and not weighted and not halved:
            weighted = halved = True
        elif _is_number(following, value, 0.5) and not halved:
            halved = True
        else:
            return False
        last, value = following, following.outputs[0]
        if weighted and halved:
            rewriter.set(last, "gelu", x=x, mode=string("EXACT"))
            return True
    return False


def _divided_by_root(rewriter: Rewriter, inner: Value) -> Value | None:
    """x of x / sqrt(2), or of x times its inverse."""
    maker = rewriter.made_by(inner, "real_div", "mul")
    if maker is None:
        return None
    factor = math.sqrt(2) if maker.op == "real_div" else 1 / math.sqrt(2)
    by = known_at(maker, "y")
    if isinstance(by, float) and matches(by, factor):
        return value_at(maker, "x")
    by = known_at(maker, "x")
    if maker.op == "mul" and isinstance(by, float) and matches(by, factor):
        return value_at(maker, "y")
    return None


def _is_number(operation: Operation, value: Value, number: float) -> bool:
    other = other_operand(operation, value)
    return (
        other is not None
        and other.is_constant
        and other.constant.size == 1
        and matches(float(other.constant.reshape(-1)[0]), number)
        and other.rank <= value.rank
    )


def _is_half_of(value: Value, x: Value) -> bool:
    maker = value.maker
    return maker is not None and maker.op == "mul" and _is_number(maker, x, 0.5)


def bounded_below_and_above(rewriter: Rewriter, operation: Operation) -> bool:
    """The minimum of `relu` and a number is `clip`, or `relu6` if the number is 6."""
    last = rewriter.follows(operation, "minimum", "clip") if operation.op == "relu" else None
    x = value_at(operation, "x")
    if last is None or x is None:
        return False
    least, most = 0.0, None
    if last.op == "clip":
        least, most = max(0.0, known_at(last, "alpha")), known_at(last, "beta")
    else:
        other = other_operand(last, operation.outputs[0])
        if other is not None and other.is_constant and other.constant.size == 1:
            most = float(other.constant.reshape(-1)[0])
    if most is None or most <= least or (last.op != "clip" and last.outputs[0].rank != x.rank):
        return False
    if (least, most) == (0, 6):
        rewriter.set(last, "relu6", x=x)
        return True
    bounds = {
        name: constant(np.float32(n), "fp32") for name, n in (("alpha", least), ("beta", most))
    }
    rewriter.set(last, "clip", x=x, **bounds)
    return True
