"""Pooling of maps."""

from __future__ import annotations

import numpy as np

from mlferry.runtime.planned.convolution import Run, Window
from mlferry.runtime.planned.finish import Finish
from mlferry.runtime.planned.maps import Array, Workspace
from mlferry.runtime.planned.products import Block, by_rows, shared_blocks

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
    even = shared_blocks(height, width, _CACHE // (4 * reach * channels))

    def lane() -> Block:
        buffer = work.take(even[0][1], reach, channels)

        def block(top: int, number: int) -> Run:
            lines, target = buffer[:number], y[top : top + number]
            starts = [top * down + i for i in range(tall)]
            parts = [x[i : i + (number - 1) * down + 1 : down, :reach] for i in starts]
            cells = [lines[:, j : j + (width - 1) * across + 1 : across] for j in range(wide)]

            def run() -> None:
                _joined(parts, combine, lines)
                _joined(cells, combine, target)
                if divisor is not None:
                    np.divide(target, divisor[top : top + number], out=target)
                finish(target, target, top)

            return run

        return block

    return by_rows(even, lane)


def _joined(parts: list[Array], combine: np.ufunc, out: Array) -> None:
    first, *others = parts
    if not others:
        np.copyto(out, first)
        return
    combine(first, others[0], out=out)
    for part in others[1:]:
        combine(out, part, out=out)
