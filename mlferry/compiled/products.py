"""Products of rows with weights, and convolutions of whole arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.arithmetic import copy_spread
from mlferry.compiled.kinds import work
from mlferry.compiled.matrices import PANEL, PackedMatrix, packed_for_windows
from mlferry.compiled.record import AT_ITS_PLACE, TABLE, one_task
from mlferry.compiled.tasks import MapTask, Table
from mlferry.compiled.vectors import (
    BYTES,
    LANES,
    OFFSETS,
    SCRATCH,
    WHOLE,
    Array,
    address,
    arrays,
    kernel,
    scratch,
    tile_for,
)
from mlferry.compiled.windows import PANELS, Pair, check_reach, convolve, segments_of
from mlferry.lanes import WORTH_A_THREAD, in_parts


@kernel(
    WHOLE, arrays(2), arrays(1), arrays(1), WHOLE, arrays(2, written=True), TABLE, OFFSETS, SCRATCH
)  # fmt: skip
def _multiply(
    code: int,
    rows: Array,
    weights: Array,
    bias: Array,
    tile: int,
    y: Array,
    table: NDArray[np.void],
    at_its_place: NDArray[np.int64],
    scratch: Array,
) -> None:
    task = table[0]
    task.function, task.tile = PANELS, tile
    task.x, task.step = address(rows), rows.strides[0]
    task.offsets, task.segments, task.run = address(at_its_place), 1, rows.shape[1]
    task.weights, task.bias = address(weights), address(bias)
    task.y, task.y_step = address(y), y.strides[0]
    task.height, task.width, task.columns = 1, y.shape[0], y.shape[1]
    task.least, task.most = -np.float32(np.inf), np.float32(np.inf)
    work(code, address(table), address(scratch))


def _product(rows: Array, weights: Array, bias: Array, y: Array) -> None:
    """A product of rows [n, inputs]: [n, outputs]."""
    _multiply(
        convolve.address,
        rows,
        weights,
        bias,
        tile_for(len(y)),
        y,
        one_task(),
        AT_ITS_PLACE,
        scratch(),
    )


@dataclass(frozen=True)
class PackedProduct:
    """A product with weights [inputs, outputs], and a bias.

    Attributes:
        weights: the weights.
        bias: filled up as they are.
    """

    weights: PackedMatrix
    bias: Array

    @classmethod
    def of(cls, matrix: Array, bias: Array | None) -> PackedProduct:
        """Pack a matrix [inputs, outputs], and a bias [outputs]."""
        weights = PackedMatrix.of(matrix)
        return cls(weights, weights.padded(bias))

    def __call__(self, rows: Array) -> Array:
        """For rows [n, inputs] in float32: [n, outputs]."""
        count, columns = len(rows), self.weights.columns
        inner = self.weights.inner
        y = np.empty((count, columns), np.float32)
        self.weights.check(rows.shape[1], columns)
        if not y.size:
            return y
        if rows.strides[1] != BYTES:
            rows = np.ascontiguousarray(rows)
        work, panels = count * inner * columns, columns // PANEL

        def some_rows(part: slice) -> None:
            _product(rows[part], self.weights.values, self.bias, y[part])

        def some_columns(part: slice) -> None:
            first, end = part.start * PANEL, part.stop * PANEL
            target = y[:, first : columns if part.stop >= panels else end]
            weights, bias = self.weights.values[first * inner :], self.bias[first:]
            _product(rows, weights, bias, target)

        if work < 2 * WORTH_A_THREAD or panels < 2:
            in_parts(some_rows, count, work)
        else:
            in_parts(some_columns, panels, work)
        return y


@kernel(
    WHOLE, arrays(3), arrays(3), arrays(1, "C", written=True), arrays(1, "C"), WHOLE,
    arrays(3, written=True), TABLE, OFFSETS, SCRATCH,
)  # fmt: skip
def _multiply_each(
    code: int,
    left: Array,
    right: Array,
    packed: Array,
    nothing: Array,
    tile: int,
    y: Array,
    table: NDArray[np.void],
    at_its_place: NDArray[np.int64],
    scratch: Array,
) -> None:
    """Matrix by matrix; those on the right are packed one after another."""
    inner, columns = right.shape[1], right.shape[2]
    task = table[0]
    task.function, task.tile, task.step, task.y_step = PANELS, tile, left.strides[1], y.strides[1]
    task.offsets, task.segments, task.run = address(at_its_place), 1, inner
    task.weights, task.bias = address(packed), address(nothing)
    task.height, task.width, task.columns = 1, y.shape[1], columns
    task.least, task.most = -np.float32(np.inf), np.float32(np.inf)
    for number in range(len(y)):
        first = 0
        while first < columns:
            width = PANEL if columns - first >= PANEL else LANES
            count = min(width, columns - first)
            for row in range(inner):
                source = address(right[number, row, first:])
                target = address(packed[first * inner + row * width :])
                copy_spread(source, right.strides[2], target, count)
            first += width
        task.x, task.y = address(left[number]), address(y[number])
        work(code, address(table), address(scratch))


def multiplied(left: Array, right: Array) -> Array:
    """``left @ right``; see `mlferry.compiled.packs_once`.

    Args:
        left: [..., n, inner].
        right: [..., inner, m].
    """
    columns = right.shape[-1]
    outer = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    y = np.empty((*outer, left.shape[-2], columns), np.float32)
    if not y.size:
        return y
    if left.strides[-1] != BYTES:
        left = np.ascontiguousarray(left)
    if math.prod(right.shape[:-2]) == 1:
        rows, matrix = left.reshape(-1, left.shape[-1]), right.reshape(right.shape[-2:])
        return PackedProduct.of(matrix, None)(rows).reshape(y.shape)
    lefts, rights = (
        np.broadcast_to(x, (*outer, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        for x in (left, right)
    )
    results = y.reshape(-1, *y.shape[-2:])
    nothing, size = PackedMatrix.zeros(columns), PackedMatrix.size(*right.shape[-2:])

    def some(part: slice) -> None:
        _multiply_each(
            convolve.address, lefts[part], rights[part], np.zeros(size, np.float32), nothing,
            tile_for(y.shape[-2]), results[part], one_task(), AT_ITS_PLACE, scratch(),
        )  # fmt: skip

    in_parts(some, len(results), y.size * left.shape[-1])
    return y


def convolved(x: Array, weights: Array, strides: Pair, dilations: Pair, size: Pair) -> Array:
    """A convolution of whole arrays, whose weights are packed for this call.

    Args:
        x: [N, C, H, W], its padding included.
        weights: [M, C, kH, kW].
        strides: of height and width.
        dilations: likewise.
        size: the extents of the result.

    Returns:
        [N, M, H', W'].
    """
    kernel = weights.shape[2:]
    matrix = weights.transpose(2, 3, 1, 0).reshape(-1, len(weights))
    packed = packed_for_windows(matrix, x.shape[1])
    maps = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y = np.empty((len(x), *size, len(weights)), np.float32)
    nothing, tile = packed.padded(None), packed.tile_for(size[1], 1)
    work = y[0].size * packed.inner if len(y) else 0
    for source, target in zip(maps, y, strict=True):
        check_reach(source, kernel, strides, dilations, target)
        offsets, run = segments_of(source, kernel, dilations)
        packed.check(offsets.size * run, target.shape[2], run)
        whole = MapTask(
            convolve, target, source,
            (strides[0] * source.strides[0], strides[1] * source.strides[1]),
            offsets, run, packed.values, bias=nothing, tile=tile,
            function=packed.function,
        )  # fmt: skip

        def convolve_rows(rows: slice, whole: MapTask = whole) -> None:
            top = rows.start * strides[0]
            Table([[replace(whole, y=whole.y[rows], x=whole.x[top:])]])()

        in_parts(convolve_rows, size[0], work)
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))
