"""Windows that slide over planes: pooling and depthwise convolutions of arrays, channels first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    LANES,
    WHOLE,
    Array,
    Instructions,
    Value,
    address,
    arrays,
    kernel,
    move,
    tile_of,
)
from mlferry.errors import PredictionError

STRIDES = (1, 2)  # along the width
SUM, LARGEST, WEIGHTED = range(3)
_HELD = 1 << 14  # values of a plane that are worked on at a time
Pair = Sequence[int]  # of height and width


def _line_tile(
    combine: Callable[[Instructions, Value, Value, Value], Value], neutral: float = 0.0
) -> Any:
    """A line of results: `count` vectors, over windows of `tall` x `wide` values."""

    @tile_of("stride", "count", "x", "tall", "down", "wide", "across", "weights", "y",
             reals=("unused", "unused_too"))  # fmt: skip
    def tile(code: Instructions, args: SimpleNamespace) -> None:
        def of_stride(stride: int) -> None:
            every = [lane * stride for lane in range(LANES)]
            with code.repeated(args.count) as index:
                total = code.variable(code.constant(neutral))
                start = code.at(args.x, index, stride * LANES * BYTES)
                with code.repeated(args.tall) as i:
                    line = code.at(start, i, args.down)
                    with code.repeated(args.wide) as j:
                        place = code.at(line, j, args.across)
                        value = code.load(place)
                        if stride > 1:
                            more = code.load(code.at(place, 1, LANES * BYTES))
                            value = code.shuffled(value, more, every)
                        tap = code.builder.add(code.builder.mul(i, args.wide), j)
                        factor = code.load(code.at(args.weights, tap, BYTES), FLOAT)
                        code.builder.store(
                            combine(code, code.builder.load(total), value, factor), total
                        )
                code.store(code.builder.load(total), code.at(args.y, index, LANES * BYTES))

        code.by_size(args.stride, STRIDES, of_stride)

    return tile


_summed_line = _line_tile(lambda code, total, value, factor: code.builder.fadd(total, value))
_largest_line = _line_tile(
    lambda code, total, value, factor: code.larger(total, value), neutral=-math.inf
)
_weighted_line = _line_tile(
    lambda code, total, value, factor: code.multiply_add(value, code.splat(factor), total)
)


@kernel(
    WHOLE, arrays(3), arrays(2, "C"), WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE,
    arrays(3, "C", written=True),
)  # fmt: skip
def _slide(
    function: int,
    x: Array,
    weights: Array,
    tall: int,
    wide: int,
    down: int,
    across: int,
    apart_y: int,
    apart_x: int,
    above: int,
    left: int,
    y: Array,
) -> None:
    """See `slide`; line by line, from a part of a plane with its border."""
    planes, height, width = y.shape
    lines, columns = x.shape[1:]
    count = -(-width // LANES)
    reach = (count * LANES - 1) * across + (wide - 1) * apart_x + 1 + LANES
    before = (tall - 1) * apart_y + 1
    band = max(1, (_HELD // reach - before) // down + 1)
    filler = np.float32(-np.inf if function == LARGEST else 0)
    held = np.full(((band - 1) * down + before, reach), filler, np.float32)
    result = np.empty(count * LANES, np.float32)
    inside = max(0, min(columns, reach - left))
    zero = np.float32(0)
    for plane in range(planes):
        source = plane // (planes // x.shape[0])
        taps = address(weights[plane % weights.shape[0]])
        for top in range(0, height, band):
            rows = min(band, height - top)
            for row in range((rows - 1) * down + before):
                line = top * down + row - above
                if line < 0 or line >= lines:
                    held[row] = filler
                else:
                    move((address(x[source, line]), address(held[row, left:]), inside), zero, zero)
            for row in range(rows):
                numbers = (
                    across, count, address(held[row * down]), tall, apart_y * reach * BYTES, wide,
                    apart_x * BYTES, taps, address(result),
                )  # fmt: skip
                if function == LARGEST:
                    _largest_line(numbers, zero, zero)
                elif function == WEIGHTED:
                    _weighted_line(numbers, zero, zero)
                else:
                    _summed_line(numbers, zero, zero)
                move((address(result), address(y[plane, top + row]), width), zero, zero)


def slide(
    function: int,
    x: Array,
    weights: Array | None,
    kernel: Pair,
    strides: Pair,
    dilations: Pair,
    start: Pair,
    y: Array,
) -> None:
    """A function of windows of planes.

    Args:
        function: `SUM`, `LARGEST`, or the sum of values times weights, `WEIGHTED`.
        x: planes [P, H, W] whose rows lie side by side. Around them lie zeros, of `LARGEST`
            what is less than any number.
        weights: [M, taps of a window], in turn for the planes of the result, or None.
        kernel: the window.
        strides: those of the width are one of `STRIDES`.
        dilations: the steps inside of a window.
        start: how far the first window reaches above and to the left of a plane.
        y: the planes of the result, as many for each of `x`.

    Raises:
        PredictionError: the numbers of planes or weights do not fit, or a window starts inside.
    """
    taps = kernel[0] * kernel[1]
    factors = np.zeros((1, taps), np.float32) if weights is None else weights
    fitting = len(y) % max(1, len(x)) == 0 and factors.shape[1] == taps
    if not fitting or strides[1] not in STRIDES or min(start) < 0:
        raise PredictionError(f"windows {tuple(kernel)} of {x.shape} do not give {y.shape}")
    if y.size:
        (tall, wide), (down, across), (apart_y, apart_x) = kernel, strides, dilations
        above, left = start
        _slide(
            function, x, factors, tall, wide, down, across, apart_y, apart_x, above, left, y
        )  # fmt: skip
