"""Moving values from map to map, and between maps and arrays, whose channels come first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlferry.runtime.planned.maps import Array
from mlferry.runtime.threads import Part as Run


def copying(x: Array, y: Array, compiled: bool) -> Run:
    """Copies a map [H, W, C]."""
    if not compiled:
        return lambda: np.copyto(y, x)
    from mlferry.compiled import tasks

    return tasks.copied(x, y)


def filling(maps: Sequence[Array], value: float, compiled: bool) -> Run:
    """Writes a value to maps [H, W, C]."""
    if compiled:
        from mlferry.compiled import tasks

        return tasks.filled(maps, value)

    def run() -> None:
        for y in maps:
            y.fill(value)

    return run


def to_pixels(planes: Array, pixels: Array, compiled: bool) -> None:
    """From [C, H, W] to [H, W, C]."""
    if compiled:
        from mlferry.compiled.planes import interleave, takes

        if takes(planes, pixels):
            interleave(planes, pixels)
            return
    np.copyto(pixels, planes.transpose(1, 2, 0))


def to_planes(pixels: Array, planes: Array, compiled: bool) -> None:
    """From [H, W, C] to [C, H, W]."""
    if compiled:
        from mlferry.compiled.planes import separate, takes

        if takes(planes, pixels):
            separate(pixels, planes)
            return
    np.copyto(planes, pixels.transpose(2, 0, 1))


def joined(runs: Iterable[Run], compiled: bool) -> list[Run]:
    """What a plan does; compiled steps next to each other are one."""
    if not compiled:
        return list(runs)
    from mlferry.compiled import tasks

    return list(tasks.joined(runs))
