"""Normalizations written as several operations: `layer_norm` and `instance_norm`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mlferry.programs.graph import Operation, Value, constant
from mlferry.programs.passes.rewriting import Rewriter, known_at, other_operand, value_at

_MAPS = 4  # the rank of maps [N, C, H, W]


def normalized_over_axes(rewriter: Rewriter, operation: Operation) -> bool:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta.

    Over the last axes, or the channels of maps, it is `layer_norm`; over height and width with a
    factor for each channel `instance_norm`.
    """
    x, axes = value_at(operation, "x"), known_at(operation, "axes")
    if operation.op != "reduce_mean" or x is None or axes is None or x.tensor.shape is None:
        return False
    if not known_at(operation, "keep_dims", False):
        return False
    places = sorted(int(axis) % x.rank for axis in np.ravel(axes))
    trailing = places == list(range(x.rank - len(places), x.rank))
    channels = x.rank == _MAPS and places == [1]
    if not (trailing or channels):
        return False
    centered = _reader(rewriter, operation.outputs[0], "sub", x)
    if centered is None:
        return False
    difference = centered.outputs[0]
    quotient = _divided_by_deviation(rewriter, difference, axes)
    if quotient is None:
        return False
    last, epsilon = quotient
    small = constant(np.float32(epsilon), "fp32")
    if x.rank == _MAPS and places == [2, 3]:
        gamma, end = _stored_behind(rewriter, last, "mul", x, [1])
        beta, end = _stored_behind(rewriter, end, "add", x, [1])
        if gamma is not None or beta is not None:
            rewriter.set(end, "instance_norm", x=x, gamma=gamma, beta=beta, epsilon=small)
            return True
    gamma, last = _stored_behind(rewriter, last, "mul", x, places)
    beta, last = _stored_behind(rewriter, last, "add", x, places)
    rewriter.set(
        last,
        "layer_norm",
        x=x,
        axes=constant(np.array(places, np.int32) - x.rank, "int32"),
        gamma=gamma,
        beta=beta,
        epsilon=small,
    )
    return True


def _reader(rewriter: Rewriter, value: Value, op: str, x: Value) -> Operation | None:
    """The operation that alone reads a value and subtracts it from x."""
    reader = rewriter.only_reader(value)
    fits = reader is not None and reader.op == op and value_at(reader, "y") is value
    return reader if fits and reader is not None and value_at(reader, "x") is x else None


def _divided_by_deviation(
    rewriter: Rewriter, difference: Value, axes: ArrayLike
) -> tuple[Operation, float] | None:
    """The operation that divides a difference by the root of its mean square, and the epsilon."""
    users = rewriter.readers_of(difference)
    squares = [u for u in users if u.op in ("mul", "square", "pow") and _is_square(u, difference)]
    if len(squares) != 1:
        return None
    mean = rewriter.follows(squares[0], "reduce_mean")
    if mean is None or not np.array_equal(known_at(mean, "axes"), axes):
        return None
    epsilon, root = 0.0, rewriter.only_reader(mean.outputs[0])
    if root is not None and root.op == "add":
        other = other_operand(root, mean.outputs[0])
        if other is None or not other.is_constant or other.constant.size != 1:
            return None
        epsilon, root = float(other.constant.reshape(-1)[0]), rewriter.only_reader(root.outputs[0])
    if root is None or root.op not in ("sqrt", "rsqrt"):
        return None
    if root.op == "rsqrt":
        epsilon += float(known_at(root, "epsilon", 1e-12))
    last = rewriter.follows(root, "real_div" if root.op == "sqrt" else "mul")
    if last is None or other_operand(last, root.outputs[0]) is not difference:
        return None
    if last.op == "real_div" and value_at(last, "x") is not difference:
        return None
    rest = [user for user in users if user not in (squares[0], last)]
    return None if rest else (last, epsilon)


def _is_square(operation: Operation, value: Value) -> bool:
    if operation.op == "pow":
        return value_at(operation, "x") is value and known_at(operation, "y") == 2
    if operation.op == "square":
        return value_at(operation, "x") is value
    return value_at(operation, "x") is value and value_at(operation, "y") is value


def _stored_behind(
    rewriter: Rewriter, last: Operation, op: str, x: Value, axes: list[int]
) -> tuple[Value | None, Operation]:
    """A constant that the next operation multiplies by, or adds, in the shape of some axes of x."""
    following = rewriter.follows(last, op)
    if following is None:
        return None, last
    other = other_operand(following, last.outputs[0])
    shape = tuple(x.shape[axis] for axis in axes)
    if other is None or not other.is_constant or other.rank > x.rank or None in shape:
        return None, last
    spread = (1,) * (x.rank - other.rank) + other.constant.shape
    if spread != tuple(x.shape[axis] if axis in axes else 1 for axis in range(x.rank)):
        return None, last
    return constant(other.constant.reshape([n or 0 for n in shape]), "fp32", other.name), following
