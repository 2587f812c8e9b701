"""Transposed convolutions of maps, phase by phase.

With a step of s, every s-th result reads the same taps of the kernel: s * s plain convolutions,
each of which writes its own results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlferry.runtime.planned.convolution import Convolve, Run, Window
from mlferry.runtime.planned.finish import Finish
from mlferry.runtime.planned.maps import Array


@dataclass(frozen=True)
class Phase:
    """Some results of one axis.

    Attributes:
        first: the first result; the others follow in steps.
        count: how many.
        start: the entry of the input that the first tap of the first result reads; below 0 it
            lies in the border.
        taps: entries of the kernel, in the order of what they read.
    """

    first: int
    count: int
    start: int
    taps: tuple[int, ...]


def phases(kernel: int, stride: int, before: int, result: int) -> list[Phase]:
    """The phases of one axis, of whose full result `before` entries are cut off in front."""
    results = []
    for first in range(min(stride, result)):
        taps = [k for k in range(kernel) if (first + before - k) % stride == 0]
        taps.sort(reverse=True)
        start = (first + before - taps[0]) // stride if taps else 0
        count = -(-(result - first) // stride)
        results.append(Phase(first, count, start, tuple(taps)))
    return results


def border(parts: list[Phase], size: int) -> tuple[int, int]:
    """How far the phases of an axis read in front of the input and behind it."""
    before = max((-p.start for p in parts if p.taps), default=0)
    after = max((p.start + p.count - 1 + len(p.taps) - size for p in parts if p.taps), default=0)
    return max(0, before), max(0, after)


def transposed(
    x: Array,
    weights: Array,
    axes: tuple[list[Phase], list[Phase]],
    stride: tuple[int, int],
    around: tuple[int, int],
    y: Array,
    finish: Finish,
    convolve: Convolve,
) -> Sequence[Run]:
    """A transposed convolution, in several steps.

    Args:
        x: [H, W, C], its border included.
        weights: [C, M, kH, kW].
        axes: the phases of height and width.
        stride: the steps.
        around: how many entries of the border lie above and to the left.
        y: [H', W', M].
        finish: what follows.
        convolve: gives what computes a plain convolution.
    """
    runs: list[Run] = []
    whole = any(not phase.taps for axis in axes for phase in axis)
    if whole:
        runs.append(lambda: y.fill(0))
    down, across = stride
    for tall in axes[0]:
        for wide in axes[1]:
            if not tall.taps or not wide.taps:
                continue
            kernel = weights[:, :, tall.taps][:, :, :, wide.taps]
            matrix = np.ascontiguousarray(
                kernel.transpose(2, 3, 0, 1).reshape(-1, weights.shape[1])
            )
            window = Window((len(tall.taps), len(wide.taps)), (1, 1), (1, 1))
            places = (slice(tall.first, None, down), slice(wide.first, None, across))
            source = x[around[0] + tall.start :, around[1] + wide.start :]
            part = Finish() if whole else finish.at(places)
            runs.append(convolve(source, matrix, window, y[places], part))
    if whole:
        runs.append(lambda: finish(y, y, 0))
    return runs
