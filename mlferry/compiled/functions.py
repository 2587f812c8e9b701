"""Functions of each value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from mlferry.compiled.vectors import (
    BYTES,
    LANES,
    WHOLE,
    Array,
    Instructions,
    address,
    arrays,
    kernel,
    tile_of,
)
from mlferry.lanes import in_rows

_FUNCTIONS = {
    "erf": Instructions.erf,
    "exp": Instructions.exp,
    "gelu": Instructions.gelu,
    "half": Instructions.half,
    "sigmoid": Instructions.sigmoid,
}
_PLACES = {name: place for place, name in enumerate(_FUNCTIONS)}


@tile_of("function", "x", "y", "count")
def _tile(code: Instructions, args: SimpleNamespace) -> None:
    """Some vectors, one after another."""
    functions = list(_FUNCTIONS.values())

    def of_function(place: int) -> None:
        with code.repeated(args.count) as index:
            value = code.load(code.at(args.x, index, BYTES * LANES))
            result = functions[place](code, value)
            code.store(result, code.at(args.y, index, BYTES * LANES))

    code.by_size(args.function, range(len(functions)), of_function)


@kernel(WHOLE, arrays(1, "C"), arrays(1, "C", written=True))
def _apply(function: int, x: Array, y: Array) -> None:
    zero = np.float32(0)
    count = x.size // LANES
    _tile((function, address(x), address(y), count), zero, zero)
    done = count * LANES
    if done < x.size:
        rest = np.zeros(LANES, np.float32)
        rest[: x.size - done] = x[done:]
        _tile((function, address(rest), address(rest), 1), zero, zero)
        y[done:] = rest[: x.size - done]


def applied(name: str, x: Array, out: Array | None = None) -> Array:
    """A function of each value.

    Args:
        name: "erf", "exp", "gelu", "sigmoid", or "half", which rounds to float16.
        x: float32, of any shape.
        out: where to write the result, row by row; it may be `x`.
    """
    rows = np.ascontiguousarray(x)
    y: Any = np.empty(x.shape, np.float32) if out is None else out
    source, target = rows.reshape(-1), y.reshape(-1)
    in_rows(lambda part: _apply(_PLACES[name], source[part], target[part]), source)
    return y
