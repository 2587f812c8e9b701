"""Functions of the rows of a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
from llvmlite import ir

from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    LANES,
    REAL,
    Array,
    Instructions,
    Value,
    address,
    arrays,
    kernel,
    tile_of,
)


@kernel(
    arrays(2, "C"), arrays(1, "C"), arrays(1, "C"), REAL, arrays(2, "C", written=True),
    any_order=True,
)  # fmt: skip
def normalize_rows(x: Array, gamma: Array, beta: Array, epsilon: np.float32, y: Array) -> None:
    """Each row with mean 0 and variance 1, times a factor and plus a shift for each column.

    Args:
        x: [n, m].
        gamma: the factors, [m].
        beta: the shifts, [m].
        epsilon: what is added to variances.
        y: the result, [n, m].
    """
    count, width = x.shape
    for row in range(count):
        total = np.float32(0)
        for column in range(width):
            total += x[row, column]
        mean = total / np.float32(width)
        squares = np.float32(0)
        for column in range(width):
            centered = x[row, column] - mean
            squares += centered * centered
        scale = np.float32(1) / np.sqrt(squares / np.float32(width) + epsilon)
        for column in range(width):
            y[row, column] = (x[row, column] - mean) * scale * gamma[column] + beta[column]


@tile_of("x", "count", "rest", "y", reals=("unused", "unused_too"))
def _softmax_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A row of `count` vectors and the one at `rest`, which is written over; NaN makes all NaN."""
    builder = code.builder
    rest = code.load(args.rest)
    largest, total = code.variable(rest), code.variable(code.constant(0.0))

    def vectors(source: Value) -> Iterator[tuple[Value, Value]]:
        """Each vector, and where it goes; inside of a loop."""
        with code.repeated(args.count) as index:
            here = (code.at(place, index, BYTES * LANES) for place in (source, args.y))
            source, target = here
            yield code.load(source), target

    for value, _ in vectors(args.x):
        before = builder.load(largest)
        more = builder.fcmp_ordered(">", value, before)
        builder.store(builder.select(more, value, before), largest)
    shift = code.splat(code.folded(builder.load(largest), code.larger))

    def power(value: Value) -> Value:
        result = code.exp_below_zero(builder.fsub(value, shift))
        builder.store(builder.fadd(builder.load(total), result), total)
        return result

    for value, target in vectors(args.x):
        code.store(power(value), target)
    rest = power(rest)
    part = code.splat(
        builder.fdiv(ir.Constant(FLOAT, 1.0), code.folded(builder.load(total), builder.fadd))
    )
    for value, target in vectors(args.y):
        code.store(builder.fmul(value, part), target)
    code.store(builder.fmul(rest, part), args.rest)


@kernel(arrays(2, "C"), arrays(2, "C", written=True))
def softmax_rows(x: Array, y: Array) -> None:
    """e**x over its sum in each row, without overflow.

    Args:
        x: [n, m].
        y: the result, [n, m].
    """
    rows, width = x.shape
    count = width // LANES
    whole = count * LANES
    zero = np.float32(0)
    rest = np.empty(LANES, np.float32)
    for row in range(rows):
        rest[:] = -np.inf
        rest[: width - whole] = x[row, whole:]
        _softmax_tile((address(x[row]), count, address(rest), address(y[row])), zero, zero)
        y[row, whole:] = rest[: width - whole]
