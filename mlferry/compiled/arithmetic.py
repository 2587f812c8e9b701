"""Functions of two values, values that lie apart, and rows by their indices."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from numba.np.numpy_support import carray

from mlferry.compiled.kinds import Kind
from mlferry.compiled.record import TASK
from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    LANES,
    SCRATCH_SHAPE,
    Instructions,
    Value,
    address,
    called,
    memory_at,
    move,
    tile_of,
)

_VECTOR = BYTES * LANES
_FUNCTIONS: dict[str, Callable[[Instructions, Value, Value], Value]] = {
    "add": lambda code, x, y: code.builder.fadd(x, y),
    "subtract": lambda code, x, y: code.builder.fsub(x, y),
    "multiply": lambda code, x, y: code.builder.fmul(x, y),
    "divide": lambda code, x, y: code.builder.fdiv(x, y),
    "maximum": Instructions.larger,
    "minimum": Instructions.smaller,
    "equal": lambda code, x, y: code.truth(code.builder.fcmp_ordered("==", x, y)),
    "not_equal": lambda code, x, y: code.truth(code.builder.fcmp_unordered("!=", x, y)),
    "less": lambda code, x, y: code.truth(code.builder.fcmp_ordered("<", x, y)),
    "less_equal": lambda code, x, y: code.truth(code.builder.fcmp_ordered("<=", x, y)),
    "greater": lambda code, x, y: code.truth(code.builder.fcmp_ordered(">", x, y)),
    "greater_equal": lambda code, x, y: code.truth(code.builder.fcmp_ordered(">=", x, y)),
}
PLACES = {name: place for place, name in enumerate(_FUNCTIONS)}
"""The numbers of the functions, by the names of NumPy's; comparisons give 1 or 0."""


@tile_of("function", "x", "x_step", "addends", "addend_step", "y", "count", "rounds")
def _tile(code: Instructions, args: SimpleNamespace) -> None:
    """Some vectors, one after another; rounded to float16 if `rounds`, then limited."""
    functions = list(_FUNCTIONS.values())
    least, most = code.splat(args.least), code.splat(args.most)

    def of_function(place: int) -> None:
        with code.repeated(args.count) as index:
            x = code.load(code.at(args.x, index, args.x_step))
            other = code.load(code.at(args.addends, index, args.addend_step))
            result = code.variable(functions[place](code, x, other))
            code.round([[result]], args.rounds)
            value = code.within(code.builder.load(result), least, most)
            code.store(value, code.at(args.y, index, _VECTOR))

    code.by_size(args.function, range(len(functions)), of_function)


@tile_of("source", "spread", "target", "count", reals=("unused", "unused_too"))
def _spread_tile(code: Instructions, args: SimpleNamespace) -> None:
    """Copy so many values, `spread` bytes apart, to where they lie side by side."""
    with code.repeated(args.count) as index:
        value = code.load(code.at(args.source, index, args.spread), FLOAT)
        code.store(value, code.at(args.target, index, BYTES))


@called
def copy_spread(source: int, spread: int, target: int, count: int) -> None:
    """Copy values that lie so many bytes apart; 0 repeats one."""
    nothing = np.float32(0)
    if spread == BYTES:
        move((source, target, count), nothing, nothing)
    else:
        _spread_tile((source, spread, target, count), nothing, nothing)


@Kind
def move_apart(place: int, room: int) -> None:
    """Move rows [height, width, columns], whose values lie `spread` bytes apart."""
    task = carray(memory_at(place), 1, TASK)[0]
    for row in range(task.height):
        for pixel in range(task.width):
            source = task.x + row * task.line + pixel * task.step
            target = task.y + row * task.y_line + pixel * task.y_step
            copy_spread(source, task.spread, target, task.columns)


@Kind
def gather_rows(place: int, room: int) -> None:
    """Copy the rows of `columns` values at `x` that `width` indices at `addends` name.

    There are `height` rows; negative indices count from the end. Fractions are cut off. Where an
    index names no row, 1 is written to the whole number at `bias`, and no row.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    indices = carray(memory_at(task.addends), task.width, np.float32)
    nothing = np.float32(0)
    for number in range(task.width):
        index = indices[number]
        if index > -task.height - 1 and index < task.height:
            row = int(index)
            row += task.height if row < 0 else 0
            source, target = task.x + row * task.step, task.y + number * task.y_step
            move((source, target, task.columns), nothing, nothing)
        else:
            carray(memory_at(task.bias), 1, np.int64)[0] = 1


@Kind
def combine(place: int, room: int) -> None:
    """A function of rows [height, width, columns] and their `addends`.

    The values of either lie side by side, or are one for a row, whose spread is 0.
    """
    task = carray(memory_at(place), 1, TASK)[0]
    scratch = carray(memory_at(room), SCRATCH_SHAPE, np.float32)
    count = task.columns // LANES
    left = task.columns - count * LANES
    done = count * LANES
    held, rest = scratch[:2], scratch[2:4]  # operands with one value, and what is left of a row
    for row in range(task.height):
        for pixel in range(task.width):
            x = task.x + row * task.line + pixel * task.step
            other = task.addends + row * task.addend_line + pixel * task.addend_step
            y = task.y + row * task.y_line + pixel * task.y_step
            x_vectors, other_vectors, x_step, other_step = x, other, _VECTOR, _VECTOR
            if task.spread == 0:
                copy_spread(x, 0, address(held[0]), LANES)
                x_vectors, x_step = address(held[0]), 0
            if task.addend_spread == 0:
                copy_spread(other, 0, address(held[1]), LANES)
                other_vectors, other_step = address(held[1]), 0
            numbers = (
                task.function, x_vectors, x_step, other_vectors, other_step, y, count, task.rounds,
            )  # fmt: skip
            _tile(numbers, task.least, task.most)
            if left:
                copy_spread(x + done * task.spread, task.spread, address(rest[0]), left)
                after = other + done * task.addend_spread
                copy_spread(after, task.addend_spread, address(rest[1]), left)
                result = address(rest[0])
                numbers = (
                    task.function, result, 0, address(rest[1]), 0, result, 1, task.rounds,
                )  # fmt: skip
                _tile(numbers, task.least, task.most)
                copy_spread(result, BYTES, y + done * BYTES, left)
