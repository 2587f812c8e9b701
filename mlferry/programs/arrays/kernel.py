"""Joining, splitting, repeating and filling arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import vector

Ints = tuple[int, ...]
_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


def _checked(shape: Ints, size: int = 4) -> Ints:
    limits.check("blob", size * math.prod(shape), f"a value of shape {shape} takes bytes:")
    return shape


@kernel("concat", moves=True)
def concat(call: Call, values: list[Array], axis: int, interleave: bool) -> Array:
    if not interleave:
        return np.concatenate([np.atleast_1d(value) for value in values], axis)
    stacked = np.stack(values, axis % values[0].ndim + 1)
    axis %= values[0].ndim
    return stacked.reshape(*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :])


@kernel("stack", moves=True)
def stack(call: Call, values: list[Array], axis: int) -> Array:
    return np.stack(values, axis)


@kernel("split", moves=True)
def split(
    call: Call, x: Array, num_splits: int | None, split_sizes: Ints | None, axis: int
) -> tuple[Array, ...]:
    if split_sizes is not None:
        ends = np.cumsum(vector(split_sizes))[:-1]
        return tuple(np.split(x, ends, axis))
    return tuple(np.split(x, num_splits or 1, axis))


@kernel("tile", moves=True)
def tile(call: Call, x: Array, reps: Array) -> Array:
    counts = tuple(int(n) for n in np.ravel(reps))
    _checked((x.size, *counts))
    return np.tile(x, counts)


@kernel("pad", moves=True)
def pad(call: Call, x: Array, pad: Array, mode: str, constant_val: float) -> Array:
    amounts = np.ravel(pad).astype(int).reshape(-1, 2).tolist()
    widths = [(0, 0)] * (x.ndim - len(amounts)) + [tuple(pair) for pair in amounts]
    _checked(tuple(n + sum(pair) for n, pair in zip(x.shape, widths, strict=True)))
    options: dict[str, Any] = {"constant_values": constant_val} if mode == "constant" else {}
    return np.pad(x, widths, _MODES[mode], **options)  # type: ignore[call-overload] # options by mode


@kernel("fill")
def fill(call: Call, shape: Array, value: float) -> Array:
    return np.full(_checked(tuple(int(n) for n in np.ravel(shape))), value)


@kernel("fill_like", moves=True)
def fill_like(call: Call, ref_tensor: Array, value: float) -> Array:
    return np.full(ref_tensor.shape, value)


@kernel("range_1d")
def range_1d(call: Call, end: Array, start: Array, step: Array) -> Array:
    first, last, by = (np.asarray(n).item() for n in (start, end, step))
    _checked((max(0, math.ceil((last - first) / by)) if by else 0,))
    return np.arange(first, last, by)


@kernel("band_part", moves=True)
def band_part(call: Call, x: Array, lower: int, upper: int) -> Array:
    """Keep `lower` bands below the diagonal and `upper` above it; a negative number keeps all."""
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    stays = (lower < 0) | (rows - columns <= lower)
    stays &= (upper < 0) | (columns - rows <= upper)
    return np.where(stays, x, np.zeros((), x.dtype))
