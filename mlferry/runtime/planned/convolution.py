"""Convolutions of maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.runtime.planned.finish import Finish
from mlferry.runtime.planned.maps import Array, Workspace, rows_of
from mlferry.runtime.planned.products import Block, by_rows, products, shared_blocks
from mlferry.runtime.threads import Part

_CACHE = 500_000  # bytes of unfolded input and result that are worked on at a time
_LEAST = 192  # pixels: with fewer at a time, BLAS packs the weights too often
_DEPTHWISE = 40_000  # values of a depthwise result, likewise
_WIDE = 1024  # values in the innermost loop of a depthwise convolution

strided = np.lib.stride_tricks.as_strided
Run = Part


@dataclass(frozen=True)
class Window:
    """A kernel's extent, steps and spacing, as (height, width)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]


def pointwise(x: Array, weights: Array, y: Array, finish: Finish, work: Workspace) -> Run | None:
    """One pixel, one step: a matrix product; None where the input does not lie evenly.

    Args:
        x: [H, W, C].
        weights: [C, M].
        y: [H, W, M].
        finish: what follows.
        work: memory for rows that are worked on.
    """
    if rows_of(x) is None:
        return None
    height, width, channels = x.shape
    count = weights.shape[1]
    even = shared_blocks(height, width, _rows(width, channels + count))

    def lane() -> Block:
        buffer = work.take(even[0][1] * width, count)

        def block(top: int, number: int) -> Run:
            source, target = rows_of(x[top : top + number]), y[top : top + number]
            assert source is not None
            direct, result = _result(target, buffer)
            multiplied = products(source, weights, direct)

            def run() -> None:
                for left, right, out in multiplied:
                    np.matmul(left, right, out=out)
                finish(result, target, top)

            return run

        return block

    return by_rows(even, lane)


def _rows(width: int, values: int) -> int:
    """How many rows of pixels are worked on at a time, each pixel with so many values."""
    return max(_CACHE // (4 * width * values), -(-_LEAST // width))


def _result(target: Array, buffer: Array) -> tuple[Array, Array]:
    """Where the rows of a product go, as [n, M] and [r, W, M]: to the result, or to a buffer."""
    flat = rows_of(target)
    if flat is not None:
        return flat, target
    direct = buffer[: target.shape[0] * target.shape[1]]
    return direct, direct.reshape(target.shape)


def unfolded(
    x: Array, weights: Array, window: Window, y: Array, finish: Finish, work: Workspace
) -> Run:
    """Any kernel: the windows of some rows side by side, times the weights.

    Args:
        x: [H, W, C], its border included.
        weights: [kH * kW * C, M].
        window: the kernel.
        y: [H', W', M].
        finish: what follows.
        work: memory for rows that are worked on.
    """
    (tall, wide), (down, across), (apart_y, apart_x) = window.size, window.stride, window.dilation
    height, width, count = y.shape
    inner = len(weights)
    channels = x.shape[2]
    even = shared_blocks(height, width, _rows(width, inner + count))
    most = even[0][1]
    line, pixel, value = x.strides
    joined = pixel == channels * value and apart_x == 1
    shape = (wide * channels,) if joined else (wide, channels)
    steps = (value,) if joined else (apart_x * pixel, value)

    def lane() -> Block:
        columns = work.take(most * width, inner)
        buffer = work.take(most * width, count)

        def block(top: int, number: int) -> Run:
            windows = strided(
                x[top * down :],
                (number, width, tall, *shape),
                (down * line, across * pixel, apart_y * line, *steps),
            )
            part, target = columns[: number * width], y[top : top + number]
            direct, result = _result(target, buffer)
            copied = part.reshape(number, width, tall, *shape)
            multiplied = products(part, weights, direct)

            def run() -> None:
                np.copyto(copied, windows)
                for left, right, out in multiplied:
                    np.matmul(left, right, out=out)
                finish(result, target, top)

            return run

        return block

    return by_rows(even, lane)


Convolve = Callable[[Array, Array, Window, Array, Finish], Run]
"""Gives what computes a convolution of a map with a matrix [kH * kW * C, M]."""


def grouped(
    x: Array, weights: list[Array], window: Window, y: Array, finish: Finish, convolve: Convolve
) -> Sequence[Run]:
    """Parts of the channels on their own; then what follows, once for all."""
    groups = len(weights)
    inside, outside = x.shape[2] // groups, y.shape[2] // groups
    parts = [
        convolve(
            x[..., g * inside : (g + 1) * inside],
            matrix,
            window,
            y[..., g * outside : (g + 1) * outside],
            Finish(),
        )
        for g, matrix in enumerate(weights)
    ]

    return [*parts, lambda: finish(y, y, 0)]


def depthwise(
    x: Array, weights: Array, window: Window, y: Array, finish: Finish, work: Workspace
) -> Run:
    """One kernel a channel, [kH, kW, C]: a sum of products over strided views."""
    (tall, wide), (down, across), (apart_y, apart_x) = window.size, window.stride, window.dilation
    height, width, channels = y.shape
    pack = 1
    if across == 1 and x.strides[1] == channels * x.itemsize:
        fitting = [n for n in range(1, width + 1) if width % n == 0 and n * channels <= _WIDE]
        pack = max(fitting, default=1)
    span = pack * channels
    kernel = np.ascontiguousarray(np.tile(weights, (1, 1, pack)))
    line, pixel, value = x.strides
    even = shared_blocks(height, width, _DEPTHWISE // (width * channels))

    def lane() -> Block:
        buffer = work.take(even[0][1], width, channels)

        def block(top: int, number: int) -> Run:
            windows = strided(
                x[top * down :],
                (number, width // pack, tall, wide, span),
                (down * line, across * pack * pixel, apart_y * line, apart_x * pixel, value),
            )
            target = y[top : top + number]
            result = target if target.flags.c_contiguous else buffer[:number]
            out = result.reshape(number, width // pack, span)

            def run() -> None:
                np.einsum("hwijc,ijc->hwc", windows, kernel, out=out)
                finish(result, target, top)

            return run

        return block

    return by_rows(even, lane)
