"""Pooling of maps."""

from __future__ import annotations

import numpy as np

from mlferry.runtime.planned.convolution import Run, Window
from mlferry.runtime.planned.maps import Array, Workspace
from mlferry.runtime.planned.products import Finish, blocks

_CACHE = 200_000  # bytes of rows that are held


def pool(
    x: Array,
    window: Window,
    y: Array,
    finish: Finish,
    combine: np.ufunc,
    divisor: Array | None,
    work: Workspace,
) -> Run:
    """The maximum or the sum over windows: along the height first, then along the width.

    Args:
        x: [H, W, C], its border included.
        window: the kernel.
        y: [H', W', C].
        finish: what follows.
        combine: `numpy.maximum` or `numpy.add`.
        divisor: [H', W', 1] of an average.
        work: memory for rows that are worked on.
    """
    (tall, wide), (down, across) = window.size, window.stride
    height, width, channels = y.shape
    reach = (width - 1) * across + wide
    rows = _CACHE // (4 * reach * channels)
    held = work.take(blocks(height, rows)[0][1], reach, channels)

    def run() -> None:
        for top, number in blocks(height, rows):
            lines = held[:number]
            for i in range(tall):
                first = top * down + i
                part = x[first : first + (number - 1) * down + 1 : down, :reach]
                if i == 0:
                    np.copyto(lines, part)
                else:
                    combine(lines, part, out=lines)
            target = y[top : top + number]
            for j in range(wide):
                cells = lines[:, j : j + (width - 1) * across + 1 : across]
                if j == 0:
                    np.copyto(target, cells)
                else:
                    combine(target, cells, out=target)
            if divisor is not None:
                np.divide(target, divisor[top : top + number], out=target)
            finish(target, target, top)

    return run
