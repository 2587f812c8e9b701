"""Functions of each value."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from mlferry.compiled.kinds import Kind, work
from mlferry.compiled.record import TABLE, TASK, one_task
from mlferry.compiled.vectors import (
    BYTES,
    LANES,
    SCRATCH,
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
from mlferry.lanes import in_rows

_FUNCTIONS: dict[str, Callable[[Instructions, Value], Value]] = {
    "erf": Instructions.erf,
    "exp": Instructions.exp,
    "gelu": Instructions.gelu,
    "half": Instructions.half,
    "identity": lambda code, x: x,
    "sigmoid": Instructions.sigmoid,
    "tanh": Instructions.tanh,
}
PLACES = {name: place for place, name in enumerate(_FUNCTIONS)}
"""The numbers of the functions, by their names."""


@tile_of("function", "x", "y", "count")
def _tile(code: Instructions, args: SimpleNamespace) -> None:
    """Some vectors, one after another; the results are limited to `least` and `most`."""
    functions = list(_FUNCTIONS.values())
    least, most = code.splat(args.least), code.splat(args.most)

    def of_function(place: int) -> None:
        with code.repeated(args.count) as index:
            value = code.load(code.at(args.x, index, BYTES * LANES))
            result = code.within(functions[place](code, value), least, most)
            code.store(result, code.at(args.y, index, BYTES * LANES))

    code.by_size(args.function, range(len(functions)), of_function)


@Kind
def apply(place: int, room: int) -> None:
    """A function of each value of rows [height, width, columns]."""
    task = carray(memory_at(place), 1, TASK)[0]
    count = task.columns // LANES
    left = task.columns - count * LANES
    done = count * LANES * BYTES
    nothing = np.float32(0)
    for row in range(task.height):
        for pixel in range(task.width):
            source = task.x + row * task.line + pixel * task.step
            target = task.y + row * task.y_line + pixel * task.y_step
            _tile((task.function, source, target, count), task.least, task.most)
            if left:
                move((source + done, room, left), nothing, nothing)
                _tile((task.function, room, room, 1), task.least, task.most)
                move((room, target + done, left), nothing, nothing)


@kernel(WHOLE, WHOLE, arrays(1, "C"), arrays(1, "C", written=True), TABLE, SCRATCH)
def _apply(
    code: int, function: int, x: Array, y: Array, table: NDArray[np.void], scratch: Array
) -> None:
    task = table[0]
    task.function, task.x, task.y, task.columns = function, address(x), address(y), x.size
    task.height, task.width = 1, 1
    task.least, task.most = -np.float32(np.inf), np.float32(np.inf)
    work(code, address(table), address(scratch))


def applied(name: str, x: Array, out: Array | None = None) -> Array:
    """A function of each value.

    Args:
        name: one of `PLACES`; "half" rounds to float16.
        x: float32, of any shape.
        out: where to write the result, row by row; it may be `x`.
    """
    rows = np.ascontiguousarray(x)
    y: Any = np.empty(x.shape, np.float32) if out is None else out
    source, target = rows.reshape(-1), y.reshape(-1)
    code, function = apply.address, PLACES[name]

    def some(part: slice) -> None:
        _apply(code, function, source[part], target[part], one_task(), scratch())

    in_rows(some, source)
    return y
