"""Means and variances of the channels of a map, and the factors that make these 0 and 1.

They are taken line by line, while a line is in the cache, and then merged (Chan, Golub and LeVeque,
"Updating formulae and a pairwise algorithm for computing sample variances", 1979). So a map is read
once, and a large mean costs no digits.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
from numba.np.numpy_support import carray

from mlferry.compiled.kinds import Kind
from mlferry.compiled.record import TASK
from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    LANES,
    SCRATCH_BYTES,
    Instructions,
    Value,
    memory_at,
    tile_of,
)

MOST_COLUMNS = SCRATCH_BYTES // 16
"""How many channels `find_factors` takes."""
_TOGETHER = (1, 2)  # vectors


@tile_of(
    "vectors", "x", "step", "count", "means", "squares", reals=("unused", "unused_too")
)  # fmt: skip
def _line_tile(code: Instructions, args: SimpleNamespace) -> None:
    """Some vectors of channels of `count` pixels: means, and sums of squared deviations."""
    builder = code.builder
    size = code.splat(builder.sitofp(args.count, FLOAT))

    def of_vectors(vectors: int) -> None:
        def values(pixel: Value) -> list[Value]:
            place = code.at(args.x, pixel, args.step)
            return [code.load(code.at(place, v, LANES * BYTES)) for v in range(vectors)]

        def squared(pixel: Value) -> list[Value]:
            apart = [builder.fsub(*pair) for pair in zip(values(pixel), means, strict=True)]
            return [builder.fmul(value, value) for value in apart]

        means = [builder.fdiv(total, size) for total in code.totals(args.count, vectors, values)]
        squares = code.totals(args.count, vectors, squared)
        for v, (mean, square) in enumerate(zip(means, squares, strict=True)):
            code.store(mean, code.at(args.means, v, LANES * BYTES))
            code.store(square, code.at(args.squares, v, LANES * BYTES))

    code.by_size(args.vectors, _TOGETHER, of_vectors)


@Kind
def describe_lines(place: int, room: int) -> None:
    """Of lines [height, width, columns] the mean of each channel, and its squared deviations' sum.

    The results are [height, 2, columns]; there are at least as many columns as a vector has lanes.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    nothing = np.float32(0)
    for row in range(task.height):
        source, means = task.x + row * task.line, task.y + row * task.y_line
        done = 0
        while done < task.columns:
            vectors = 2 if task.columns - done >= 2 * LANES else 1
            channel = min(done, task.columns - LANES)
            offset = channel * BYTES
            numbers = (
                vectors, source + offset, task.step, task.width, means + offset,
                means + task.y_step + offset,
            )  # fmt: skip
            _line_tile(numbers, nothing, nothing)
            done = channel + vectors * LANES


@Kind
def find_factors(place: int, room: int) -> None:
    """What to multiply channels by, and to add, so that they have given means and deviations.

    At `x` lie the results of `describe_lines` for `number` pixels each, [height, 2, width,
    columns]; the deviations are to be `weights`, [columns], and the means `bias`. `least` is added
    to variances. The results are [2, width, columns], `width` times the same.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    columns = task.columns
    totals = carray(memory_at(room), (2, columns), np.float64)
    means, squares = totals[0], totals[1]
    totals[:] = 0
    for row in range(task.height):
        for part in range(task.width):
            line = task.x + row * task.line + part * columns * BYTES
            values = carray(memory_at(line), columns, np.float32)
            for column in range(columns):
                means[column] += values[column]
    lines = task.height * task.width
    for column in range(columns):
        means[column] /= lines
    for row in range(task.height):
        for part in range(task.width):
            line = task.x + row * task.line + part * columns * BYTES
            values = carray(memory_at(line), columns, np.float32)
            others = carray(memory_at(line + task.step), columns, np.float32)
            for column in range(columns):
                apart = values[column] - means[column]
                squares[column] += others[column] + task.number * apart * apart
    gamma = carray(memory_at(task.weights), columns, np.float32)
    beta = carray(memory_at(task.bias), columns, np.float32)
    pixels = lines * task.number
    for part in range(task.width):
        target = task.y + part * columns * BYTES
        factors = carray(memory_at(target), columns, np.float32)
        shifts = carray(memory_at(target + task.y_line), columns, np.float32)
        for column in range(columns):
            factor = np.float32(gamma[column] / math.sqrt(squares[column] / pixels + task.least))
            factors[column] = factor
            # rounded as the products of values are, so that a value that is the mean cancels out
            shifts[column] = beta[column] - np.float32(means[column]) * factor
