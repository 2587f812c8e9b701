"""Functions of the rows of a matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
from llvmlite import ir
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from mlferry.compiled.kinds import Kind, work
from mlferry.compiled.record import TABLE, TASK, one_task
from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    LANES,
    REAL,
    SCRATCH,
    SCRATCH_SHAPE,
    WHOLE,
    Array,
    Instructions,
    Value,
    address,
    arrays,
    kernel,
    memory_at,
    move,
    scratch,
    tile_of,
)

_VECTOR = BYTES * LANES


@tile_of("x", "count", "left", "rest", "gamma", "beta", "y", reals=("epsilon", "unused"))
def _normalize_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A row of `count` vectors and of `left` values more.

    These lie at `rest`, where they are written over; behind them lie their factors and shifts.
    """
    b = code.builder
    valid = b.fcmp_ordered(
        "<",
        ir.Constant(code.vector, [float(lane) for lane in range(LANES)]),
        code.splat(b.sitofp(args.left, FLOAT)),
    )
    columns = b.add(b.mul(args.count, code.whole(LANES)), args.left)
    size = code.splat(b.sitofp(columns, FLOAT))
    rest = b.select(valid, code.load(args.rest), code.constant(0.0))

    def average(of: Callable[[Value], Value], last: Value) -> Value:
        (total,) = code.totals(
            args.count, 1, lambda i: [of(code.load(code.at(args.x, i, _VECTOR)))]
        )
        return b.fdiv(code.splat(code.folded(b.fadd(total, last), b.fadd)), size)

    def squared(value: Value) -> Value:
        centered = b.fsub(value, mean)
        return b.fmul(centered, centered)

    mean = average(lambda value: value, rest)
    variance = average(squared, b.select(valid, squared(rest), code.constant(0.0)))
    deviation = code.square_root(b.fadd(variance, code.splat(args.epsilon)))
    scale = b.fdiv(code.constant(1.0), deviation)

    def normalized(value: Value, gamma: Value, beta: Value) -> Value:
        return b.fadd(b.fmul(b.fmul(b.fsub(value, mean), scale), gamma), beta)

    with code.repeated(args.count) as index:
        given = (code.load(code.at(p, index, _VECTOR)) for p in (args.x, args.gamma, args.beta))
        code.store(normalized(*given), code.at(args.y, index, _VECTOR))
    gamma, beta = (code.load(code.at(args.rest, place, _VECTOR)) for place in (1, 2))
    code.store(normalized(rest, gamma, beta), args.rest)


@Kind
def normalize(place: int, room: int) -> None:
    """Rows [width, columns], each with mean 0 and variance 1, times factors and plus shifts.

    The factors are `weights`, the shifts `bias`; `least` is added to variances.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    rest = carray(memory_at(room), SCRATCH_SHAPE, np.float32)
    count = task.columns // LANES
    left = task.columns - count * LANES
    done = count * LANES * BYTES
    nothing = np.float32(0)
    move((task.weights + done, address(rest[1]), left), nothing, nothing)
    move((task.bias + done, address(rest[2]), left), nothing, nothing)
    for row in range(task.width):
        source, target = task.x + row * task.step, task.y + row * task.y_step
        move((source + done, address(rest[0]), left), nothing, nothing)
        numbers = source, count, left, address(rest[0]), task.weights, task.bias, target
        _normalize_tile(numbers, task.least, nothing)
        move((address(rest[0]), target + done, left), nothing, nothing)


@tile_of("x", "count", "rest", "y", reals=("unused", "unused_too"))
def _softmax_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A row of `count` vectors and the one at `rest`, which is written over; NaN makes all NaN."""
    builder = code.builder
    rest = code.load(args.rest)
    largest, total = code.variable(rest), code.variable(code.constant(0.0))

    def vectors(source: Value) -> Iterator[tuple[Value, Value]]:
        """Each vector, and where it goes; inside of a loop."""
        with code.repeated(args.count) as index:
            here = (code.at(place, index, _VECTOR) for place in (source, args.y))
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


@Kind
def softmax(place: int, room: int) -> None:
    """Of rows [width, columns] e**x over its sum in each."""
    task = carray(memory_at(place), 1, TASK)[0]
    rest = carray(memory_at(room), SCRATCH_SHAPE, np.float32)
    count = task.columns // LANES
    left = task.columns - count * LANES
    done = count * LANES * BYTES
    nothing = np.float32(0)
    for row in range(task.width):
        source, target = task.x + row * task.step, task.y + row * task.y_step
        rest[0] = -np.inf
        move((source + done, address(rest[0]), left), nothing, nothing)
        _softmax_tile((source, count, address(rest[0]), target), nothing, nothing)
        move((address(rest[0]), target + done, left), nothing, nothing)


@kernel(
    WHOLE, arrays(2, "C"), arrays(1, "C"), arrays(1, "C"), REAL, arrays(2, "C", written=True),
    TABLE, SCRATCH,
)  # fmt: skip
def _normalize(
    code: int,
    x: Array,
    gamma: Array,
    beta: Array,
    epsilon: np.float32,
    y: Array,
    table: NDArray[np.void],
    scratch: Array,
) -> None:
    task = table[0]
    task.x, task.step, task.y, task.y_step = address(x), x.strides[0], address(y), y.strides[0]
    task.width, task.columns = x.shape
    task.weights, task.bias, task.least = address(gamma), address(beta), epsilon
    work(code, address(table), address(scratch))


def normalize_rows(x: Array, gamma: Array, beta: Array, epsilon: np.float32, y: Array) -> None:
    """Each row with mean 0 and variance 1, times a factor and plus a shift for each column.

    Args:
        x: [n, m].
        gamma: the factors, [m].
        beta: the shifts, [m].
        epsilon: what is added to variances.
        y: the result, [n, m].
    """
    _normalize(normalize.address, x, gamma, beta, epsilon, y, one_task(), scratch())


@kernel(WHOLE, arrays(2, "C"), arrays(2, "C", written=True), TABLE, SCRATCH)
def _softmax(code: int, x: Array, y: Array, table: NDArray[np.void], scratch: Array) -> None:
    task = table[0]
    task.x, task.step, task.y, task.y_step = address(x), x.strides[0], address(y), y.strides[0]
    task.width, task.columns = x.shape
    work(code, address(table), address(scratch))


def softmax_rows(x: Array, y: Array) -> None:
    """e**x over its sum in each row, without overflow.

    Args:
        x: [n, m].
        y: the result, [n, m].
    """
    _softmax(softmax.address, x, y, one_task(), scratch())
