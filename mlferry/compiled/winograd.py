"""Convolutions of three by three pixels in Winograd's tiles; see `transforms`.

A thread transforms some tiles, multiplies them, and transforms the products back, while all of them
lie in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numba.np.numpy_support import carray

from mlferry.compiled.kinds import Kind
from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.record import TASK
from mlferry.compiled.transforms import INPUT, RESULT, TILES, transformed
from mlferry.compiled.vectors import (
    BYTES,
    LANES,
    SCRATCH_BYTES,
    SCRATCH_SHAPE,
    Array,
    Instructions,
    Value,
    address,
    called,
    memory_at,
    tile_of,
)
from mlferry.compiled.windows import multiply_tile, vectors_for
from mlferry.errors import PredictionError
from mlferry.memory import aligned

_VECTOR = LANES * BYTES
GROUP = max(1, 64 // LANES)
"""Vectors of the result that are computed at a time."""
_ZEROS, _SPARE, _USED = 0, GROUP, 2 * GROUP  # rows of the scratch
_ROOM, _LARGE = 1 << 19, 3 << 19  # bytes
_INFINITE = np.float32(np.inf)


def _times(code: Instructions, matrix: Array, x: list[Value]) -> list[Value]:
    """The product of a matrix with as many vectors."""
    builder, result = code.builder, []
    for row in matrix:
        factors = {k: float(factor) for k, factor in enumerate(row) if factor}
        first = next((k for k, factor in factors.items() if factor == 1), min(factors))
        factor = factors.pop(first)
        total = x[first] if factor == 1 else builder.fmul(x[first], code.constant(factor))
        for k, factor in factors.items():
            if factor == 1:
                total = builder.fadd(total, x[k])
            elif factor == -1:
                total = builder.fsub(total, x[k])
            else:
                total = code.multiply_add(x[k], code.constant(factor), total)
        result.append(total)
    return result


def _on_both_axes(code: Instructions, matrix: Array, x: list[list[Value]]) -> list[list[Value]]:
    """A matrix times x, times the matrix transposed."""
    columns = [_times(code, matrix, list(column)) for column in zip(*x, strict=True)]
    return [_times(code, matrix, list(row)) for row in zip(*columns, strict=True)]


@tile_of(
    "side", "vectors", "x", "line", "step", "y", "apart", reals=("unused", "unused_too")
)  # fmt: skip
def _transform_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A tile of the input, for a number of vectors of channels.

    Its pixels are a line or a step apart, and those of the result `apart`.
    """

    def of_side(side: int) -> None:
        extent = range(side + 2)
        with code.repeated(args.vectors) as vector:
            x, y = (code.at(place, vector, _VECTOR) for place in (args.x, args.y))
            lines = [code.at(x, i, args.line) for i in extent]
            values = [[code.load(code.at(line, j, args.step)) for j in extent] for line in lines]
            results = _on_both_axes(code, INPUT[side], values)
            for i, row in enumerate(results):
                for j, value in enumerate(row):
                    code.store(value, code.at(y, i * (side + 2) + j, args.apart))

    code.by_size(args.side, TILES, of_side)


@tile_of(
    "side", "vectors", "x", "apart", "bias", "addends", "addend_line", "addend_step", "rounds",
    "y", "line", "step", "height", "width", "spare",
)  # fmt: skip
def _result_tile(code: Instructions, args: SimpleNamespace) -> None:
    """A tile of the result, of products that lie `apart`, for a number of vectors of channels.

    Bias and addends are added, and results rounded and limited, as in `windows.multiply_tile`. What
    lies beyond `height` and `width` goes to `spare`.
    """
    builder = code.builder

    def places(first: Value, line: Value, step: Value, side: int) -> list[Value]:
        result = []
        for i in range(side):
            for j in range(side):
                inside = builder.and_(
                    builder.icmp_signed("<", code.whole(i), args.height),
                    builder.icmp_signed("<", code.whole(j), args.width),
                )
                place = code.at(code.at(first, i, line), j, step)
                result.append(builder.select(inside, place, args.spare))
        return result

    def of_side(side: int) -> None:
        extent = range(side + 2)
        adds = builder.icmp_signed("!=", args.addends, code.whole(0))
        targets = places(args.y, args.line, args.step, side)
        addends = places(args.addends, args.addend_line, args.addend_step, side)
        with code.repeated(args.vectors) as vector:
            x = code.at(args.x, vector, _VECTOR)
            values = [
                [code.load(code.at(x, i * (side + 2) + j, args.apart)) for j in extent]
                for i in extent
            ]
            bias = code.load(code.at(args.bias, vector, _VECTOR))
            sums = [
                [code.variable(builder.fadd(value, bias))]
                for row in _on_both_axes(code, RESULT[side], values)
                for value in row
            ]
            code.round(sums, args.rounds)
            with builder.if_then(adds):
                code.add(sums, [code.at(addend, vector, _VECTOR) for addend in addends])
            code.finish(sums, args, [code.at(target, vector, _VECTOR) for target in targets])

    code.by_size(args.side, TILES, of_side)


@Kind
def convolve_in_tiles(place: int, room: int) -> None:
    """A convolution [H, W, M] in tiles of `side` x `side` results."""
    task = carray(memory_at(place), 1, TASK)[0]
    scratch = carray(memory_at(room), SCRATCH_SHAPE, np.float32)
    side, number, channels = task.side, task.number, task.run
    across = -(-task.width // side)
    count = -(-task.height // side) * across
    span = (side + 2) * (side + 2)
    zeros, spare = address(scratch[_ZEROS]), address(scratch[_SPARE])
    scratch[:_SPARE] = 0
    pixel = channels * BYTES
    # a vector more, so that the matrices do not displace each other from the cache
    apart = number * pixel + _VECTOR
    spread = address(scratch[_USED])
    products = spread + span * apart
    nothing = np.float32(0)
    done = 0
    while done < count:
        first = min(done, count - number)
        for t in range(number):
            row, column = divmod(first + t, across)
            source = task.x + row * side * task.line + column * side * task.step
            numbers = (
                side, channels // LANES, source, task.line, task.step, spread + t * pixel, apart
            )  # fmt: skip
            _transform_tile(numbers, nothing, nothing)
        ready = 0
        while ready < task.columns:
            columns = min(GROUP * LANES, task.columns - ready)
            _multiply_tiles(task, ready, columns, spread, apart, products, zeros)
            product = columns * BYTES
            for t in range(number):
                row, column = divmod(first + t, across)
                top, left = row * side, column * side
                offset = ready * BYTES
                addends = task.addends
                if addends:
                    addends += top * task.addend_line + left * task.addend_step + offset
                ends = (
                    side, columns // LANES, products + t * product, number * product + _VECTOR,
                    task.bias + offset, addends, task.addend_line, task.addend_step, task.rounds,
                    task.y + top * task.y_line + left * task.y_step + offset, task.y_line,
                    task.y_step, task.height - top, task.width - left, spare,
                )  # fmt: skip
                _result_tile(ends, task.least, task.most)
            ready += columns
        done += number


@called
def _multiply_tiles(
    task: SimpleNamespace, first: int, columns: int, x: int, apart: int, y: int, zeros: int
) -> None:
    """Some columns of the products of all matrices of transformed tiles."""
    number, channels = task.number, task.run
    span = (task.side + 2) * (task.side + 2)
    pixel, product = channels * BYTES, columns * BYTES
    for k in range(span):
        weights = task.weights + k * task.weight_step + first * pixel
        ready = 0
        while ready < columns:
            vectors = vectors_for(task.tile, columns - ready)
            panel = weights + ready * pixel
            share = (task.tile * _VECTOR * vectors - 1) // number + 1
            done = 0
            while done < number:
                start = min(done, number - task.tile)
                ahead = panel + task.weight_step + done // task.tile * channels * share
                numbers = (
                    task.tile, vectors, task.tile, x + k * apart + start * pixel, pixel, 0,
                    task.offsets, 1, channels, panel, ahead, share,
                    zeros, 0, 0, 0, 0,
                    y + k * (number * product + _VECTOR) + start * product + ready * BYTES,
                    product, 0,
                )  # fmt: skip
                multiply_tile(numbers, -_INFINITE, _INFINITE)
                done += task.tile
            ready += vectors * LANES


@dataclass(frozen=True)
class PackedTiles:
    """Kernels of three by three pixels for tiles.

    Attributes:
        values: their transforms, [(side + 2)^2, n], each as the values of a `PackedMatrix`.
        channels: of the input.
        columns: channels of the result.
        side: of a tile of the result.
    """

    values: Array
    channels: int
    columns: int
    side: int

    @classmethod
    def of(cls, weights: Array, side: int) -> PackedTiles:
        """Transform and pack kernels [M, C, 3, 3]."""
        matrices = transformed(weights, side)
        count, channels, columns = matrices.shape
        values = aligned(count, PackedMatrix.size(channels, columns))
        for matrix, packed in zip(matrices, values, strict=True):
            PackedMatrix(packed, channels, columns).fill(matrix)
        return cls(values, channels, columns, side)

    def check(self, x: Array, y: Array) -> None:
        """Compiled code checks no index, so this does.

        Args:
            x: [H', W', C], its border included.
            y: [H, W, M].

        Raises:
            PredictionError: tiles reach beyond the map, or it has other channels.
        """
        extents = tuple(-(-n // self.side) * self.side + 2 for n in y.shape[:2])
        if any(least > n for least, n in zip(extents, x.shape, strict=False)):
            raise PredictionError(f"tiles of {self.side} for {y.shape} reach beyond {x.shape}")
        if (x.shape[2], y.shape[2]) != (self.channels, self.columns):
            raise PredictionError(
                f"a convolution of {x.shape[2]} channels to {y.shape[2]}; "
                f"its weights are for {self.channels} to {self.columns}"
            )
        if any(array.strides[2] != BYTES for array in (x, y)):
            raise PredictionError("the channels of a map do not lie side by side")


def number_for(tiles: int, side: int, channels: int, columns: int) -> int:
    """How many tiles are transformed at a time, of so many: even parts that fit the scratch.

    What is transformed stays in the second nearest cache. Where the weights are too large for it,
    and would be read again for each part, tiles may take more room.
    """
    span = (side + 2) ** 2
    is_large = weight_bytes(side, channels, columns) > _LARGE
    room = SCRATCH_BYTES if is_large else _ROOM
    most = ((room - _USED * _VECTOR) // span - 2 * _VECTOR) // (BYTES * (channels + GROUP * LANES))
    return -(-tiles // -(-tiles // most)) if most > 0 else 0


def weight_bytes(side: int, channels: int, columns: int) -> int:
    """How much memory the transformed kernels take."""
    return (side + 2) ** 2 * channels * columns * BYTES


# What takes how long, in sums of vectors: transforming a vector of a tile of an input or a result,
# and reading a byte of weights that no cache holds. What surrounds the sums comes on top.
_TRANSFORM, _RESULT, _BYTE = {2: 290, 4: 650}, {2: 110, 4: 250}, 0.13
_OVERHEAD, _MARGIN = 1.15, 0.9


def side_for(height: int, width: int, channels: int, columns: int) -> int:
    """The side of the tiles with the least estimated time; 0 if a plain sum is not much slower.

    Args:
        height: of the result; likewise `width`.
        width: see `height`.
        channels: of the input.
        columns: channels of the result.
    """
    if channels % LANES or columns % LANES:
        return 0
    weights = channels * columns
    best, least = 0, 9 * weights * (height * width / LANES + _BYTE * BYTES) * _MARGIN
    for side in TILES:
        span, tiles = (side + 2) ** 2, -(-height // side) * -(-width // side)
        if tiles < _LEAST_TILES or number_for(tiles, side, channels, columns) < _LEAST_TILES:
            continue
        transforms = tiles * (channels * _TRANSFORM[side] + columns * _RESULT[side]) / LANES
        products = span * weights * (tiles / LANES * _OVERHEAD + _BYTE * BYTES)
        if products + transforms < least:
            best, least = side, products + transforms
    return best


_LEAST_TILES = 4  # with fewer, reading weights takes longer than multiplying by them
