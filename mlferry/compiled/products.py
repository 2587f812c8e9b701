"""Products of rows with weights, and convolutions of whole arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.vectors import BYTES, Array, tile_for
from mlferry.compiled.windows import Pair, check_reach, convolve, segments_of

_AT_ITS_PLACE = np.zeros(1, np.int64)
_INFINITE = np.float32(np.inf)


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
        y = np.empty((1, count, columns), np.float32)
        self.weights.check(rows.shape[1], columns)
        if not y.size:
            return y[0]
        if rows.strides[1] != BYTES:
            rows = np.ascontiguousarray(rows)
        convolve(
            rows[None], 0, rows.strides[0], _AT_ITS_PLACE, self.weights.inner, self.weights.values,
            self.bias, y, False, False, y, -_INFINITE, _INFINITE, tile_for(count),
        )  # fmt: skip
        return y[0]


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
    packed = PackedMatrix.of(weights.transpose(2, 3, 1, 0).reshape(-1, len(weights)))
    maps = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y = np.empty((len(x), *size, len(weights)), np.float32)
    nothing, tile = packed.padded(None), tile_for(size[1])
    for source, target in zip(maps, y, strict=True):
        check_reach(source, kernel, strides, dilations, target)
        offsets, run = segments_of(source, kernel, dilations)
        packed.check(offsets.size * run, target.shape[2])
        convolve(
            source, strides[0] * source.strides[0], strides[1] * source.strides[1], offsets, run,
            packed.values, nothing, target, False, False, target, -_INFINITE, _INFINITE, tile,
        )  # fmt: skip
    return np.ascontiguousarray(y.transpose(0, 3, 1, 2))
