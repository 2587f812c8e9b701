"""Convolutions and pooling of maps by the kernels that Numba compiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled import vectors, windows
from mlferry.compiled.matrices import PackedMatrix
from mlferry.runtime.planned.convolution import Run, Window
from mlferry.runtime.planned.finish import Finish, TileEnds
from mlferry.runtime.planned.maps import Array, rows_of
from mlferry.runtime.planned.products import by_rows, shared_blocks

_PIXEL = Window((1, 1), (1, 1), (1, 1))
_CACHE = 500_000  # bytes of input and result that are worked on at a time


def convolved(x: Array, weights: PackedMatrix, window: Window, y: Array, finish: Finish) -> Run:
    """A convolution of any kernel.

    Args:
        x: [H, W, C], its border included.
        weights: [kH * kW * C, M].
        window: the kernel.
        y: [H', W', M].
        finish: what follows.
    """
    bias = weights.padded(finish.bias)
    ends, rest = finish.split_for_tiles()
    height, width, _ = y.shape
    channels = x.shape[2]
    windows.check_reach(x, window.size, window.stride, window.dilation, y)
    offsets, run = windows.segments_of(x, window.size, window.dilation)
    weights.check(offsets.size * run, y.shape[2])
    even = shared_blocks(height, width, _CACHE // (4 * width * (channels + weights.columns)))

    def block(top: int, number: int) -> Run:
        target = y[top : top + number]
        source = x[top * window.stride[0] :]
        above = ends.addend
        part = replace(ends, addend=None if above is None else above[top : top + number])
        product = _product(source, weights, window, offsets, run, bias, part, target)

        def run_block() -> None:
            product()
            if rest.steps:
                rest(target, target, top)

        return run_block

    return by_rows(even, lambda: block)


def _product(
    x: Array,
    weights: PackedMatrix,
    window: Window,
    offsets: NDArray[np.int64],
    run: int,
    bias: Array,
    ends: TileEnds,
    y: Array,
) -> Run:
    """The product for some rows; where pixels lie evenly, all of them are one row."""
    line, step = window.stride[0] * x.strides[0], window.stride[1] * x.strides[1]
    addend = y if ends.addend is None else ends.addend
    if window.size == window.stride == (1, 1):
        flat = [rows_of(part) for part in (x[: len(y), : y.shape[1]], y, addend)]
        if all(part is not None for part in flat):
            x, y, addend = (part[None] for part in flat if part is not None)
    tile = vectors.tile_for(y.shape[1])
    limits = ends.limits.least, ends.limits.most

    def multiply() -> None:
        windows.convolve(
            x, line, step, offsets, run, weights.values, bias, addend, ends.addend is not None,
            ends.rounds, y, *limits, tile,
        )  # fmt: skip

    return multiply


def depthwise(x: Array, weights: Array, window: Window, y: Array, finish: Finish) -> Run:
    """One kernel a channel, [kH, kW, C], of at least as many channels as a vector has lanes."""
    channels = y.shape[2]
    bias = np.zeros(channels, np.float32) if finish.bias is None else finish.bias
    matrix = np.ascontiguousarray(weights.reshape(-1, channels))
    return _windows(windows.WEIGHTED, x, window, matrix, bias, y, finish, None)


def pool(x: Array, window: Window, y: Array, finish: Finish, divisor: Array | None) -> Run:
    """The largest value of windows, or with a divisor, [H', W', 1], their mean."""
    channels = y.shape[2]
    function = windows.LARGEST if divisor is None else windows.SUM
    nothing = np.zeros(channels, np.float32)
    return _windows(function, x, window, nothing[None], nothing, y, finish, divisor)


def instance_normalized(
    x: Array, gamma: Array, beta: Array, epsilon: np.float32, y: Array, finish: Finish
) -> Run:
    """Each channel with mean 0 and variance 1, times a factor and plus a shift.

    Args:
        x: [H, W, C]; C is at least as much as a vector has lanes.
        gamma: the factors, [C].
        beta: the shifts, [C].
        epsilon: what is added to variances.
        y: [H, W, C].
        finish: what follows.
    """
    height, width, channels = x.shape
    lines = np.empty((height, 1, channels), np.float32)
    nothing, mean, factor, shift = np.zeros((4, 1, channels), np.float32)
    row = Window((1, width), (1, 1), (1, 1))

    def over_rows(function: int, weights: Array) -> Run:
        return _windows(function, x, row, weights, nothing[0], lines, Finish(), None)

    add, add_squares = over_rows(windows.SUM, nothing), over_rows(windows.SQUARES, mean)
    scale = _windows(windows.SCALED, x, _PIXEL, factor, shift[0], y, finish, None)

    def average() -> Array:
        total: Array = lines.sum(axis=0, dtype=np.float64) / (height * width)
        return total.astype(np.float32)

    def run() -> None:
        add()
        mean[:] = average()
        add_squares()
        factor[:] = gamma / np.sqrt(average() + epsilon)
        shift[:] = beta - mean * factor
        scale()

    return run


def takes_windows(channels: int) -> bool:
    """Whether `depthwise` and `pool` take maps with so many channels."""
    return channels >= vectors.LANES


def _windows(
    function: int,
    x: Array,
    window: Window,
    weights: Array,
    bias: Array,
    y: Array,
    finish: Finish,
    divisor: Array | None,
) -> Run:
    ends, rest = finish.split_for_tiles()
    if ends.addend is not None or divisor is not None:
        ends, rest = TileEnds(), Finish(steps=finish.steps)
    height, width, channels = y.shape
    windows.check_reach(x, window.size, window.stride, window.dilation, y)
    offsets = windows.pixels_of(x, window.size, window.dilation).ravel()
    line, step = window.stride[0] * x.strides[0], window.stride[1] * x.strides[1]
    tile = vectors.window_tile_for(width)
    limits = ends.limits.least, ends.limits.most

    def block(top: int, number: int) -> Run:
        source, target = x[top * window.stride[0] :], y[top : top + number]

        def run() -> None:
            windows.reduce_windows(
                function, source, line, step, offsets, weights, bias, ends.rounds, target,
                *limits, tile,
            )  # fmt: skip
            if divisor is not None:
                np.divide(target, divisor[top : top + number], out=target)
            if rest.steps:
                rest(target, target, top)

        return run

    even = shared_blocks(height, width, _CACHE // (8 * width * channels))
    return by_rows(even, lambda: block)
