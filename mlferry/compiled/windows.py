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
from llvmlite import ir
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from mlferry.compiled.kinds import Kind
from mlferry.compiled.record import TASK
from mlferry.compiled.vectors import (
    BYTES,
    DOT_TILES,
    FLOAT,
    INT,
    LANES,
    MACHINE,
    TILES,
    WINDOW_TILES,
    Array,
    Instructions,
    Sums,
    Value,
    called,
    memory_at,
    move,
    tile_of,
)
from mlferry.errors import PredictionError
from mlferry.memory import CACHE_LINE

Pair = Sequence[int]  # of height and width
PANELS, DOTS = range(2)
"""The functions of `convolve`, by how weights lie: in panels of columns, or a few columns."""
SUM, LARGEST, WEIGHTED, SCALED = range(4)
"""Those of `reduce_windows`: the sum, the largest value, and the sum of values times weights; or
one value times the weight of its channel, to which a map may be added."""


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


_MOST_VECTORS = (0, *map(MACHINE.most_vectors, range(1, TILES[0] + 1)))  # by pixels


@called
def vectors_for(pixels: int, columns: int) -> int:
    """Of how many vectors a tile of `multiply_tile` is, where so many whole columns follow."""
    most = _MOST_VECTORS[pixels]
    if columns >= most * LANES:
        return most
    return 2 if columns >= 2 * LANES else 1


_product_tile = tile_of(
    "pixels", "vectors", "until", "x", "x_step", "x_jump", "offsets", "segments", "run",
    "weights", "ahead", "ahead_step", "bias", "addends", "addend_step", "addend_jump", "rounds",
    "y", "y_step", "y_jump",
)  # fmt: skip


@_product_tile
def multiply_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A tile of a product: some pixels, and as many vectors of channels as `vectors_for` says.

    For pixel p and channel m, y[p, m] is the sum over segments s and values t < `run` of
    x[p, offsets[s] + t] * weights[s * run + t, m], plus bias[m], plus addends[p, m] unless
    that address is 0, limited to `least` and `most`; if `rounds`, every result is rounded to
    float16. From pixel `until` on, pixels lie a jump further, as in the next line of a map.

    The results and addends are prefetched before the sums are taken, and what later tiles read,
    which lies at `ahead`, while they are: waiting for memory takes as long as many sums.
    """
    builder, vector = code.builder, BYTES * LANES

    def tile(pixels: int, vectors: int) -> None:
        many = pixels > 1  # one reads little but weights, which processors prefetch themselves
        sums = code.sums(pixels, vectors)
        starts = code.pixels(pixels, args.x, args.x_step, args.until, args.x_jump)
        y = code.pixels(pixels, args.y, args.y_step, args.until, args.y_jump)
        addends = code.pixels(pixels, args.addends, args.addend_step, args.until, args.addend_jump)
        adds = builder.icmp_signed("!=", args.addends, code.whole(0))
        if many:
            for place in y:
                code.prefetch(place, written=True)
            with builder.if_then(adds):
                for place in addends:
                    code.prefetch(place)
        row = min(vectors, 2) * vector  # of a panel
        panel = builder.mul(builder.mul(args.segments, args.run), code.whole(row))
        firsts = [
            code.at(code.at(args.weights, v // 2, panel), v % 2, vector) for v in range(vectors)
        ]
        with code.repeated(args.segments) as segment:
            offset = code.load(code.at(args.offsets, segment, 8), INT)
            places = [builder.add(start, offset) for start in starts]
            begin = builder.mul(segment, args.run)
            with code.repeated(args.run) as t:
                distance = code.at(code.whole(0), builder.add(begin, t), row)
                factors = [code.load(builder.add(first, distance)) for first in firsts]
                if many:
                    reached = code.at(args.ahead, builder.add(begin, t), args.ahead_step)
                    code.prefetch(reached, nearest=False)
                for place, totals in zip(places, sums, strict=True):
                    value = code.splat(code.load(code.at(place, t, BYTES), FLOAT))
                    for factor, total in zip(factors, totals, strict=True):
                        added = code.multiply_add(value, factor, builder.load(total))
                        builder.store(added, total)
        _end_product(code, args, sums)

    def of_pixels(pixels: int) -> None:
        sizes = sorted({1, 2, _MOST_VECTORS[pixels]})
        code.by_size(args.vectors, sizes, lambda vectors: tile(pixels, vectors))

    code.by_size(args.pixels, TILES, of_pixels)


def _end_product(code: Instructions, args: SimpleNamespace, sums: Sums) -> None:
    """Add the bias and the addends to sums, limit and round them, and write them."""
    pixels = len(sums)
    code.add(sums, [args.bias] * pixels)
    _add_map(code, args, sums)
    code.finish(sums, args, code.pixels(pixels, args.y, args.y_step, args.until, args.y_jump))


def _add_map(code: Instructions, args: SimpleNamespace, sums: Sums) -> None:
    """Add the map at `addends` unless that is 0, to sums that are rounded before if `rounds`."""
    code.round(sums, args.rounds)
    with code.builder.if_then(code.builder.icmp_signed("!=", args.addends, code.whole(0))):
        steps = args.addend_step, args.until, args.addend_jump
        code.add(sums, code.pixels(len(sums), args.addends, *steps))


@_product_tile
def dot_tile(code: Instructions, args: SimpleNamespace) -> None:
    """The same for a few channels, as many as `vectors` says, whose weights lie one after another.

    A vector holds values of the window: one of so few channels would be mostly empty. What is
    written for a pixel is a whole vector, too. `run` is a multiple of `LANES`.
    """
    builder, vector = code.builder, BYTES * LANES

    def tile(pixels: int, columns: int) -> None:
        sums = code.sums(pixels, columns)
        starts = code.pixels(pixels, args.x, args.x_step, args.until, args.x_jump)
        column = builder.mul(builder.mul(args.segments, args.run), code.whole(BYTES))
        with code.repeated(args.segments) as segment:
            offset = code.load(code.at(args.offsets, segment, 8), INT)
            places = [builder.add(start, offset) for start in starts]
            begin = code.at(args.weights, builder.mul(segment, args.run), BYTES)
            with code.repeated(builder.udiv(args.run, code.whole(LANES))) as t:
                first = code.at(begin, t, vector)
                factors = [code.load(code.at(first, m, column)) for m in range(columns)]
                for place, totals in zip(places, sums, strict=True):
                    value = code.load(code.at(place, t, vector))
                    for factor, total in zip(factors, totals, strict=True):
                        added = code.multiply_add(value, factor, builder.load(total))
                        builder.store(added, total)
        results = code.sums(pixels, 1)
        for (result,), totals in zip(results, sums, strict=True):
            for m, total in enumerate(totals):
                one = code.folded(builder.load(total), builder.fadd)
                place = ir.Constant(ir.IntType(32), m)
                builder.store(builder.insert_element(builder.load(result), one, place), result)
        _end_product(code, args, results)

    def of_columns(columns: int) -> None:
        code.by_size(args.pixels, DOT_TILES[columns], lambda pixels: tile(pixels, columns))

    code.by_size(args.vectors, tuple(DOT_TILES), of_columns)


def _window_tile(
    combine: Callable[[Instructions, Value, Value, Value], Value],
    neutral: float = 0.0,
    *,
    ahead: bool = False,
    adds: bool = False,
) -> Any:
    """A tile of a function of windows, channel by channel: pixels, and one vector of channels.

    For pixel p, y[p] starts with `neutral` and takes x[p, offsets[s]] in, segment by segment, with
    weights[s]; then `bias` is added, and it is limited to `least` and `most`, and rounded to
    float16 if `rounds`. Pixels lie as those of `multiply_tile` do. With `ahead`, what the next tile
    reads is prefetched, which pays where little is computed. With `adds`, a map may be added, as by
    `multiply_tile`.
    """

    @tile_of("pixels", "until", "x", "x_step", "x_jump", "offsets", "segments", "weights",
           "weight_step", "bias", "addends", "addend_step", "addend_jump", "rounds", "y", "y_step",
           "y_jump")  # fmt: skip
    def tile(code: Instructions, args: SimpleNamespace) -> None:
        builder = code.builder

        def of_pixels(pixels: int) -> None:
            sums = code.sums(pixels, 1, neutral)
            starts = code.pixels(pixels, args.x, args.x_step, args.until, args.x_jump)
            distance = builder.mul(args.x_step, code.whole(pixels))
            with code.repeated(args.segments) as segment:
                offset = code.load(code.at(args.offsets, segment, 8), INT)
                factor = code.load(code.at(args.weights, segment, args.weight_step))
                for start, (total,) in zip(starts, sums, strict=True):
                    place = builder.add(start, offset)
                    value = code.load(place)
                    if ahead:
                        code.prefetch(builder.add(place, distance))
                    builder.store(combine(code, builder.load(total), value, factor), total)
            code.add(sums, [args.bias] * pixels)
            if adds:
                _add_map(code, args, sums)
            y = args.y, args.y_step, args.until, args.y_jump
            code.finish(sums, args, code.pixels(pixels, *y))

        code.by_size(args.pixels, WINDOW_TILES, of_pixels)

    return tile


_weighted_tile = _window_tile(
    lambda code, total, value, factor: code.multiply_add(value, factor, total)
)
_largest_tile = _window_tile(
    lambda code, total, value, factor: code.larger(total, value), neutral=-math.inf, ahead=True
)
_summed_tile = _window_tile(
    lambda code, total, value, factor: code.builder.fadd(total, value), ahead=True
)


@called
def _first_pixel(task: SimpleNamespace, done: int) -> tuple[int, int]:
    """Row and column where the next tile starts, earlier where it would reach beyond the map."""
    return divmod(min(done, task.height * task.width - task.tile), task.width)


@Kind
def convolve(place: int, room: int) -> None:
    """A convolution [H, W, M]; see `multiply_tile`, and for the function `DOTS` `dot_tile`."""
    task = carray(memory_at(place), 1, TASK)[0]
    inner = task.segments * task.run
    whole = task.columns // LANES * LANES
    left = task.columns - whole
    nothing = np.float32(0)
    # what is left of the channels goes through vectors of its own: results, and addends
    rest, added_rest = room, room + TILES[0] * LANES * BYTES
    line = LANES * BYTES
    pixels = task.height * task.width
    x_jump = task.line - task.width * task.step
    y_jump = task.y_line - task.width * task.y_step
    addend_jump = task.addend_line - task.width * task.addend_step
    # of each line of the weights that follow, so many bytes for each tile
    share = (task.tile * CACHE_LINE - 1) // pixels + 1
    first = 0
    while first < task.columns:
        direct = first < whole
        vectors = vectors_for(task.tile, whole - first)
        if task.function == DOTS:
            vectors = task.columns
        panel = task.weights + first * inner * BYTES
        offset = first * BYTES
        done = 0
        while done < pixels:
            row, column = _first_pixel(task, done)
            until = task.width - column
            source = task.x + row * task.line + column * task.step
            result = task.y + row * task.y_line + column * task.y_step + offset
            addend = task.addends + row * task.addend_line + column * task.addend_step + offset
            ends = result, task.y_step, y_jump, addend, task.addend_step, addend_jump
            ahead = panel + vectors * inner * line + done // task.tile * inner * share
            ahead_step = share
            if first == 0 and task.segments == 1:
                ahead = source + task.tile * task.step
                ahead_step = task.tile * task.step // max(1, task.run)
            if not direct:
                ends = rest, line, 0, added_rest, line, 0
                for p in range(task.tile if task.addends else 0):
                    added = addend + p * task.addend_step + (addend_jump if p >= until else 0)
                    move((added, added_rest + p * line, left), nothing, nothing)
            numbers = (
                task.tile, vectors, until, source, task.step, x_jump,
                task.offsets, task.segments, task.run, panel, ahead, ahead_step,
                task.bias + offset, ends[3] if task.addends else 0, ends[4], ends[5], task.rounds,
                ends[0], ends[1], ends[2],
            )  # fmt: skip
            if task.function == DOTS:
                dot_tile(numbers, task.least, task.most)
            else:
                multiply_tile(numbers, task.least, task.most)
            for p in range(0 if direct else task.tile):
                target = result + p * task.y_step + (y_jump if p >= until else 0)
                move((rest + p * line, target, left), nothing, nothing)
            done += task.tile
        first += vectors * LANES


def _scaled(code: Instructions, total: Value, value: Value, factor: Value) -> Value:
    """Rounded twice, so that a mean that was multiplied likewise cancels out."""
    return code.builder.fadd(code.builder.fmul(value, factor), total)


_scaled_tile = _window_tile(_scaled, ahead=True, adds=True)


@Kind
def reduce_windows(place: int, room: int) -> None:
    """A function of windows [H, W, C]; see `_window_tile`."""
    task = carray(memory_at(place), 1, TASK)[0]
    pixels = task.height * task.width
    x_jump = task.line - task.width * task.step
    y_jump = task.y_line - task.width * task.y_step
    addend_jump = task.addend_line - task.width * task.addend_step
    done = 0
    while done < pixels:
        row, column = _first_pixel(task, done)
        source = task.x + row * task.line + column * task.step
        target = task.y + row * task.y_line + column * task.y_step
        added = task.addends + row * task.addend_line + column * task.addend_step
        ready = 0
        while ready < task.columns:
            channel = min(ready, task.columns - LANES)
            offset = channel * BYTES
            numbers = (
                task.tile, task.width - column, source + offset, task.step, x_jump,
                task.offsets, task.segments, task.weights + offset, task.weight_step,
                task.bias + offset, added + offset if task.addends else 0, task.addend_step,
                addend_jump, task.rounds, target + offset, task.y_step, y_jump,
            )  # fmt: skip
            if task.function == WEIGHTED:
                _weighted_tile(numbers, task.least, task.most)
            elif task.function == LARGEST:
                _largest_tile(numbers, task.least, task.most)
            elif task.function == SCALED:
                _scaled_tile(numbers, task.least, task.most)
            else:
                _summed_tile(numbers, task.least, task.most)
            ready = channel + LANES
        done += task.tile


@tile_of("target", "count", reals=("value", "unused"))
def _fill_tile(code: Instructions, args: SimpleNamespace) -> None:
    """Write a value so many times."""
    with code.repeated(args.count) as index:
        code.store(args.value, code.at(args.target, index, BYTES))


@Kind
def fill_pixels(place: int, room: int) -> None:
    """Write `least` to the pixels [H, W, C] of a map."""
    task = carray(memory_at(place), 1, TASK)[0]
    for row in range(task.height):
        for pixel in range(task.width):
            target = task.y + row * task.y_line + pixel * task.y_step
            _fill_tile((target, task.columns), task.least, task.most)


@Kind
def copy_pixels(place: int, room: int) -> None:
    """Copy the pixels [H, W, C] of a map."""
    task = carray(memory_at(place), 1, TASK)[0]
    for row in range(task.height):
        for pixel in range(task.width):
            target = task.y + row * task.y_line + pixel * task.y_step
            source = task.x + row * task.line + pixel * task.step
            move((source, target, task.columns), task.least, task.most)
