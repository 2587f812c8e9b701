"""Convolutions and pooling.

The windows of a convolution are not unfolded: each tile reads them where they lie, at offsets that
are the same for every pixel (Dukhan, "The Indirect Convolution Algorithm", 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    INT,
    LANES,
    OFFSETS,
    REAL,
    TILES,
    WHOLE,
    WINDOW_TILES,
    YES,
    Array,
    Instructions,
    Value,
    address,
    arrays,
    kernel,
    tile_of,
)
from mlferry.errors import PredictionError

Pair = Sequence[int]  # of height and width


def check_reach(x: Array, size: Pair, stride: Pair, dilation: Pair, y: Array) -> None:
    """Compiled code checks no index, so this does.

    Raises:
        PredictionError: windows reach beyond the map, or channels do not lie side by side.
    """
    for k, s, d, extent, count in zip(size, stride, dilation, x.shape, y.shape, strict=False):
        if (count - 1) * s + (k - 1) * d >= extent:
            raise PredictionError(f"windows of {tuple(size)} for {y.shape} reach beyond {x.shape}")
    if any(array.shape[2] > 1 and array.strides[2] != array.itemsize for array in (x, y)):
        raise PredictionError("the channels of a map do not lie side by side")


def pixels_of(x: Array, size: Pair, dilation: Pair) -> NDArray[np.int64]:
    """Where the pixels of a window of [H, W, C] lie, [kH, kW], in bytes from its first."""
    down, across = (
        np.arange(k) * d * step for k, d, step in zip(size, dilation, x.strides, strict=False)
    )
    return np.ascontiguousarray(down[:, None] + across, np.int64)


def segments_of(x: Array, size: Pair, dilation: Pair) -> tuple[NDArray[np.int64], int]:
    """Where the segments of a window lie, and how many values each has: pixels, or whole lines."""
    places, channels = pixels_of(x, size, dilation), x.shape[2]
    if dilation[1] == 1 and x.strides[1] == channels * x.itemsize:
        return places[:, 0].copy(), channels * size[1]
    return places.ravel(), channels


@tile_of("pixels", "vectors", "x", "x_step", "offsets", "segments", "run", "weights", "bias",
       "addends", "addend_step", "rounds", "y", "y_step")  # fmt: skip
def multiply_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A tile of a product: some pixels, and one or two vectors of the result's channels.

    For pixel p and channel m, y[p, m] is the sum over segments s and values t < `run` of
    x[p, offsets[s] + t] * weights[s * run + t, m], plus bias[m], plus addends[p, m] unless
    that address is 0, limited to `least` and `most`; if `rounds`, every result is rounded to
    float16.
    """
    builder, vector = code.builder, BYTES * LANES

    def tile(pixels: int, vectors: int) -> None:
        sums = code.sums(pixels, vectors)
        starts = [code.at(args.x, p, args.x_step) for p in range(pixels)]
        with code.repeated(args.segments) as segment:
            offset = code.load(code.at(args.offsets, segment, 8), INT)
            places = [builder.add(start, offset) for start in starts]
            begin = code.at(args.weights, builder.mul(segment, args.run), vectors * vector)
            with code.repeated(args.run) as t:
                here = code.at(begin, t, vectors * vector)
                factors = [code.load(code.at(here, v, vector)) for v in range(vectors)]
                for place, row in zip(places, sums, strict=True):
                    value = code.splat(code.load(code.at(place, t, BYTES), FLOAT))
                    for factor, total in zip(factors, row, strict=True):
                        added = code.multiply_add(value, factor, builder.load(total))
                        builder.store(added, total)
        code.add(sums, args.bias, 0)
        code.round(sums, args.rounds)
        with builder.if_then(builder.icmp_signed("!=", args.addends, code.whole(0))):
            code.add(sums, args.addends, args.addend_step)
        code.finish(sums, args)

    def of_pixels(pixels: int) -> None:
        code.by_size(args.vectors, (1, 2), lambda vectors: tile(pixels, vectors))

    code.by_size(args.pixels, TILES, of_pixels)


def _window_tile(
    combine: Callable[[Instructions, Value, Value, Value], Value], neutral: float = 0.0
) -> Any:
    """A tile of a function of windows, channel by channel: pixels, and one vector of channels.

    For pixel p, y[p] starts with `neutral` and takes x[p, offsets[s]] in, segment by segment, with
    weights[s]; then `bias` is added, and it is limited to `least` and `most`, and rounded to
    float16 if `rounds`.
    """

    @tile_of("pixels", "x", "x_step", "offsets", "segments", "weights", "weight_step", "bias",
           "rounds", "y", "y_step")  # fmt: skip
    def tile(code: Instructions, args: SimpleNamespace) -> None:
        builder = code.builder

        def of_pixels(pixels: int) -> None:
            sums = code.sums(pixels, 1, neutral)
            starts = [code.at(args.x, p, args.x_step) for p in range(pixels)]
            with code.repeated(args.segments) as segment:
                offset = code.load(code.at(args.offsets, segment, 8), INT)
                factor = code.load(code.at(args.weights, segment, args.weight_step))
                for start, (total,) in zip(starts, sums, strict=True):
                    value = code.load(builder.add(start, offset))
                    builder.store(combine(code, builder.load(total), value, factor), total)
            code.add(sums, args.bias, 0)
            code.finish(sums, args)

        code.by_size(args.pixels, WINDOW_TILES, of_pixels)

    return tile


_weighted_tile = _window_tile(
    lambda code, total, value, factor: code.multiply_add(value, factor, total)
)
_largest_tile = _window_tile(
    lambda code, total, value, factor: code.larger(total, value), neutral=-math.inf
)
_summed_tile = _window_tile(lambda code, total, value, factor: code.builder.fadd(total, value))


@kernel(
    arrays(3), WHOLE, WHOLE, OFFSETS, WHOLE, arrays(1), arrays(1), arrays(3), YES, YES,
    arrays(3, written=True), REAL, REAL, WHOLE,
)  # fmt: skip
def convolve(
    x: Array,
    line: int,
    step: int,
    offsets: NDArray[np.int64],
    run: int,
    weights: Array,
    bias: Array,
    addends: Array,
    adds: bool,
    rounds: bool,
    y: Array,
    least: np.float32,
    most: np.float32,
    tile: int,
) -> None:
    """The rows [H, W, M] of a convolution; see `multiply_tile`.

    Args:
        x: [H', W', C], which starts where the windows of the first pixel start.
        line: bytes from one row of windows to the next.
        step: bytes from one window of a row to the next.
        offsets: where the segments of a window lie, in bytes.
        run: values of a segment.
        weights: those of a `PackedMatrix`.
        bias: [M] of a `PackedMatrix`.
        addends: [H, W, M] to add, if `adds`.
        adds: see `addends`.
        rounds: whether every result is rounded to float16.
        y: the result, whose channels lie side by side.
        least: of the results; likewise `most`.
        most: see `least`.
        tile: pixels at a time, at most W.
    """
    height, width, columns = y.shape
    whole = columns // LANES * LANES
    inner = offsets.size * run
    # what is left of the channels goes through a vector of its own
    rest = np.zeros((2, tile, LANES), np.float32)
    first = 0
    while first < columns:
        direct = first < whole
        vectors = 2 if whole - first > LANES else 1
        panel = address(weights) + first * inner * BYTES
        for row in range(height):
            done = 0
            while done < width:
                pixel = min(done, width - tile)
                source = address(x) + row * line + pixel * step
                result, result_step = address(rest[0]), LANES * BYTES
                addend, addend_step = address(rest[1]), LANES * BYTES
                if direct:
                    result, result_step = address(y[row, pixel, first:]), y.strides[1]
                    addend, addend_step = address(addends[row, pixel, first:]), addends.strides[1]
                elif adds:
                    for p in range(tile):
                        for m in range(whole, columns):
                            rest[1, p, m - whole] = addends[row, pixel + p, m]
                numbers = (
                    tile, vectors, source, step, address(offsets), offsets.size, run, panel,
                    address(bias) + first * BYTES, addend if adds else 0, addend_step, int(rounds),
                    result, result_step,
                )  # fmt: skip
                multiply_tile(numbers, least, most)
                if not direct:
                    for p in range(tile):
                        for m in range(whole, columns):
                            y[row, pixel + p, m] = rest[0, p, m - whole]
                done = pixel + tile
        first += vectors * LANES


def _squared(code: Instructions, total: Value, value: Value, factor: Value) -> Value:
    deviation = code.builder.fsub(value, factor)
    return code.multiply_add(deviation, deviation, total)


def _scaled(code: Instructions, total: Value, value: Value, factor: Value) -> Value:
    """Rounded twice, so that a mean that was multiplied likewise cancels out."""
    return code.builder.fadd(code.builder.fmul(value, factor), total)


_squared_tile, _scaled_tile = _window_tile(_squared), _window_tile(_scaled)

SUM, LARGEST, WEIGHTED, SQUARES, SCALED = range(5)


@kernel(
    WHOLE, arrays(3), WHOLE, WHOLE, OFFSETS, arrays(2), arrays(1), YES,
    arrays(3, written=True), REAL, REAL, WHOLE,
)  # fmt: skip
def reduce_windows(
    function: int,
    x: Array,
    line: int,
    step: int,
    offsets: NDArray[np.int64],
    weights: Array,
    bias: Array,
    rounds: bool,
    y: Array,
    least: np.float32,
    most: np.float32,
    tile: int,
) -> None:
    """The rows [H, W, C] of a function of windows; see `_window_tile`.

    Args:
        function: `SUM`, `LARGEST`, `WEIGHTED`, the sum of values times weights, or with one weight
            for each channel `SQUARES`, the sum of squared differences from it, or `SCALED`, one
            value times it.
        x: [H', W', C], which starts where the windows of the first pixel start.
        line: bytes from one row of windows to the next.
        step: bytes from one window of a row to the next.
        offsets: where the pixels of a window lie, in bytes.
        weights: [pixels of a window, C], or [1, C]; any [1, C] for a function without weights.
        bias: [C], added at the end.
        rounds: whether the result is rounded to float16.
        y: the result, at least `LANES` channels that lie side by side.
        least: of the results; likewise `most`.
        most: see `least`.
        tile: pixels at a time, at most W.
    """
    height, width, channels = y.shape
    weight_step = weights.strides[0] if function == WEIGHTED else 0
    for row in range(height):
        done = 0
        while done < width:
            pixel = min(done, width - tile)
            source = address(x) + row * line + pixel * step
            ready = 0
            while ready < channels:
                channel = min(ready, channels - LANES)
                place = channel * BYTES
                numbers = (
                    tile, source + place, step, address(offsets), offsets.size,
                    address(weights) + place, weight_step, address(bias) + place, int(rounds),
                    address(y[row, pixel, channel:]), y.strides[1],
                )  # fmt: skip
                if function == WEIGHTED:
                    _weighted_tile(numbers, least, most)
                elif function == LARGEST:
                    _largest_tile(numbers, least, most)
                elif function == SQUARES:
                    _squared_tile(numbers, least, most)
                elif function == SCALED:
                    _scaled_tile(numbers, least, most)
                else:
                    _summed_tile(numbers, least, most)
                ready = channel + LANES
            done = pixel + tile
