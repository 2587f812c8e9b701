"""Pictures of a few channels: from planes, one for each channel, to pixels, and back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir

from mlferry.compiled.vectors import (
    BYTES,
    FLOAT,
    LANES,
    Array,
    Instructions,
    Value,
    address,
    arrays,
    kernel,
    tile_of,
)

CHANNELS = (2, 3, 4)


def _side_by_side(code: Instructions, vectors: list[Value]) -> Value:
    """One vector of all."""
    whole, count = vectors[0], LANES
    for vector in vectors[1:]:
        longer = code.shuffled(vector, vector, [min(k, LANES - 1) for k in range(count)])
        whole = code.shuffled(whole, longer, list(range(count + LANES)))
        count += LANES
    return whole


def _rows_of_pixels(move: Callable[[Instructions, int, Value, Value, Value], None]) -> Any:
    """For a number of vectors of pixels, `move` gets the plane, the pixels, and a plane's bytes."""

    @tile_of("channels", "count", "planes", "plane", "pixels", reals=("unused", "unused_too"))
    def tile(code: Instructions, args: SimpleNamespace) -> None:
        def of_channels(channels: int) -> None:
            with code.repeated(args.count) as index:
                planes = code.at(args.planes, index, LANES * BYTES)
                pixels = code.at(args.pixels, index, channels * LANES * BYTES)
                move(code, channels, planes, args.plane, pixels)

        code.by_size(args.channels, CHANNELS, of_channels)

    return tile


def _interleave(
    code: Instructions, channels: int, planes: Value, plane: Value, pixels: Value
) -> None:
    vectors = [code.load(code.at(planes, channel, plane)) for channel in range(channels)]
    places = [channel * LANES + pixel for pixel in range(LANES) for channel in range(channels)]
    whole = _side_by_side(code, vectors)
    code.store(code.shuffled(whole, whole, places), pixels)


def _separate(
    code: Instructions, channels: int, planes: Value, plane: Value, pixels: Value
) -> None:
    whole = code.load(pixels, ir.VectorType(FLOAT, channels * LANES))
    for channel in range(channels):
        places = [pixel * channels + channel for pixel in range(LANES)]
        code.store(code.shuffled(whole, whole, places), code.at(planes, channel, plane))


_interleave_tile, _separate_tile = _rows_of_pixels(_interleave), _rows_of_pixels(_separate)
_ZERO = np.float32(0)


@kernel(arrays(3), arrays(3, written=True))
def interleave(planes: Array, pixels: Array) -> None:
    """From [C, H, W] to [H, W, C], both with rows whose values lie side by side; see `CHANNELS`."""
    channels, height, width = planes.shape
    count = width // LANES
    for row in range(height):
        source, target = address(planes[0, row]), address(pixels[row])
        _interleave_tile((channels, count, source, planes.strides[0], target), _ZERO, _ZERO)
        for pixel in range(count * LANES, width):
            for channel in range(channels):
                pixels[row, pixel, channel] = planes[channel, row, pixel]


@kernel(arrays(3), arrays(3, written=True))
def separate(pixels: Array, planes: Array) -> None:
    """From [H, W, C] to [C, H, W], both with rows whose values lie side by side; see `CHANNELS`."""
    channels, height, width = planes.shape
    count = width // LANES
    for row in range(height):
        source, target = address(pixels[row]), address(planes[0, row])
        _separate_tile((channels, count, target, planes.strides[0], source), _ZERO, _ZERO)
        for pixel in range(count * LANES, width):
            for channel in range(channels):
                planes[channel, row, pixel] = pixels[row, pixel, channel]


def takes(planes: Array, pixels: Array) -> bool:
    """Whether these functions move such planes [C, H, W] and pixels [H, W, C]."""
    channels = len(planes)
    return (
        channels in CHANNELS
        and planes.dtype == pixels.dtype == np.float32
        and planes.strides[2] == pixels.strides[2] == BYTES
        and pixels.strides[1] == channels * BYTES
    )
