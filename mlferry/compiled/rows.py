"""Functions of the rows of a matrix."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mlferry.compiled.vectors import (
    BYTES,
    LANES,
    REAL,
    Array,
    Instructions,
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


@tile_of("x", "count", "largest")
def _largest_tile(code: Instructions, args: SimpleNamespace) -> None:
    """The largest value of each lane, over some vectors and the one at `largest`."""
    total = code.variable(code.load(args.largest))
    with code.repeated(args.count) as index:
        value = code.load(code.at(args.x, index, BYTES * LANES))
        code.builder.store(code.larger(code.builder.load(total), value), total)
    code.store(code.builder.load(total), args.largest)


@tile_of("x", "count", "y", "sums", reals=("shift", "unused"))
def _exp_tile(code: Instructions, args: SimpleNamespace) -> None:
    """e to the power of some vectors less `shift`, which are added to the one at `sums`, too."""
    shift = code.splat(args.shift)
    total = code.variable(code.load(args.sums))
    with code.repeated(args.count) as index:
        value = code.load(code.at(args.x, index, BYTES * LANES))
        power = code.exp(code.builder.fsub(value, shift))
        code.store(power, code.at(args.y, index, BYTES * LANES))
        code.builder.store(code.builder.fadd(code.builder.load(total), power), total)
    code.store(code.builder.load(total), args.sums)


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
    rest, lanes = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    for row in range(rows):
        source, target = address(x[row]), address(y[row])
        rest[:] = -np.inf
        rest[: width - whole] = x[row, whole:]
        lanes[:] = rest
        _largest_tile((source, count, address(lanes)), zero, zero)
        largest = lanes[0]
        for lane in range(1, LANES):
            if lanes[lane] > largest or np.isnan(lanes[lane]):
                largest = lanes[lane]
        lanes[:] = 0
        _exp_tile((source, count, target, address(lanes)), largest, zero)
        if whole < width:
            _exp_tile((address(rest), 1, address(rest), address(lanes)), largest, zero)
            y[row, whole:] = rest[: width - whole]
        total = zero
        for lane in range(LANES):
            total += lanes[lane]
        part = np.float32(1) / total
        for column in range(width):
            y[row, column] *= part
