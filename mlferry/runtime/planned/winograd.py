"""Convolutions of three by three pixels in Winograd's tiles, on NumPy.

The transforms along both axes are one product with a Kronecker product.
"""

from __future__ import annotations

import numpy as np

from mlferry.compiled.transforms import INPUT, RESULT, TILES
from mlferry.runtime.planned.finish import Finish
from mlferry.runtime.planned.maps import Array, Workspace
from mlferry.runtime.planned.products import Block, Matmul, by_rows, shared_blocks
from mlferry.runtime.threads import Part

_CACHE = 700_000  # bytes of tiles that are worked on at a time
_SMALL = 1_000_000  # multiplications: below it OpenBLAS takes a path without packing


def tile_for(height: int, width: int, channels: int, count: int) -> int:
    """The tile with the least estimated time; 0 if a plain product is faster.

    Args:
        height: of the result; likewise `width`.
        width: see `height`.
        channels: of the input.
        count: of the result's channels.
    """
    weights = channels * count
    best, least = 0, 9 * weights * (height * width / _RATE + 4 / _BYTES)
    for m in TILES:
        span = (m + 2) ** 2
        tiles = -(-height // m) * -(-width // m)
        if tiles < _LEAST_TILES:
            continue
        products = span * weights * tiles / _RATE
        transforms = span * tiles * (span * channels + m * m * count) / _TRANSFORM_RATE
        traffic = 4 * span * weights / _BYTES
        copies = 4 * span * tiles * (channels + count) / _BYTES
        time = products + transforms + traffic + copies
        if time < least * _MARGIN:
            best, least = m, time
    return best


_LEAST_TILES = 32  # with fewer rows, packing the weights does not pay for BLAS
# Multiplications and bytes a second on one core; only their ratios matter.
_RATE, _TRANSFORM_RATE, _BYTES, _MARGIN = 4.5e10, 4.2e10, 1.0e10, 0.95


def convolved(x: Array, weights: Array, m: int, y: Array, finish: Finish, work: Workspace) -> Part:
    """A convolution in tiles.

    Args:
        x: [H, W, C], its border included, large enough for whole tiles.
        weights: what `transformed` made.
        m: the tile.
        y: [H', W', M].
        finish: what follows.
        work: memory for tiles.
    """
    height, width, count = y.shape
    channels, a = x.shape[2], m + 2
    down, across = -(-height // m), -(-width // m)
    before = np.kron(INPUT[m], INPUT[m])
    behind = np.kron(RESULT[m], RESULT[m])
    rows = _CACHE // (4 * across * a * a * (2 * channels + count))
    even = shared_blocks(down, across, rows)
    most = even[0][1] * across
    strided = np.lib.stride_tricks.as_strided
    line, pixel, value = x.strides
    early = not finish.placed

    def lane() -> Block:
        tiles, spread = (work.take(a * a * most * channels) for _ in range(2))
        products, results = work.take(a * a * most * count), work.take(m * m * most * count)

        def block(first: int, number: int) -> Part:
            n, top = number * across, first * m
            transformed_tiles = tiles[: a * a * n * channels].reshape(a * a, n * channels)
            wide = spread[: a * a * n * channels].reshape(a * a, n * channels)
            output = products[: a * a * n * count].reshape(a * a, n * count)
            done = results[: m * m * n * count].reshape(m * m, n * count)
            windows = strided(
                x[top:],
                (a, a, number, across, channels),
                (line, pixel, m * line, m * pixel, value),
            )
            copied = transformed_tiles.reshape(a, a, number, across, channels)
            multiplied = [
                *_columns(before, transformed_tiles, wide),
                (wide.reshape(a * a, n, channels), weights, output.reshape(a * a, n, count)),
                *_columns(behind, output, done),
            ]
            flat = done.reshape(1, m * m * n, count)
            places = _places(done.reshape(m, m, number, across, count), y[top:])
            target = y[top : top + number * m]

            def run() -> None:
                np.copyto(copied, windows)
                for left, right, out in multiplied:
                    np.matmul(left, right, out=out)
                if early:
                    finish(flat, flat, 0)
                for place, values in places:
                    np.copyto(place, values)
                if not early:
                    finish(target, target, top)

            return run

        return block

    return by_rows(even, lane)


def _columns(matrix: Array, x: Array, out: Array) -> list[Matmul]:
    """What to multiply for ``out = matrix @ x``: columns that BLAS computes unpacked."""
    rows, inner = matrix.shape
    size = x.shape[1]
    step = _SMALL // (rows * inner) // 64 * 64
    if step < 64 or size <= step:
        return [(matrix, x, out)]
    count = size // step
    strided = np.lib.stride_tricks.as_strided
    tasks = [
        (
            matrix,
            strided(x, (count, inner, step), (step * 4, x.strides[0], 4)),
            strided(out, (count, rows, step), (step * 4, out.strides[0], 4)),
        )
    ]
    whole = count * step
    return [*tasks, (matrix, x[:, whole:], out[:, whole:])] if whole < size else tasks


def _places(tiles: Array, y: Array) -> list[tuple[Array, Array]]:
    """Where [m, m, down, across, M] go in a result; what lies beyond its edges is dropped."""
    m, down = tiles.shape[0], tiles.shape[2]
    pairs = []
    for i in range(m):
        rows = y[i : down * m : m]
        for j in range(m):
            target = rows[:, j::m]
            pairs.append((target, tiles[i, j, : target.shape[0], : target.shape[1]]))
    return pairs
