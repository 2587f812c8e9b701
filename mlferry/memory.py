"""Memory as processors read it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CACHE_LINE = 64
"""Bytes that a processor takes from memory at a time."""


def aligned(*shape: int, fill: float | None = None) -> NDArray[np.float32]:
    """An array that starts at a cache line; without `fill` its values are arbitrary."""
    size, line = int(np.prod(shape)), CACHE_LINE // 4
    whole = np.empty(size + line, np.float32)
    if fill is not None:
        whole.fill(fill)
    start = -(whole.ctypes.data // 4) % line
    return whole[start : start + size].reshape(shape)
