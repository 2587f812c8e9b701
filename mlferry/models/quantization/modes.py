"""How an array becomes indices with a scale and bias, or indices with a table: each mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlferry.errors import SpecError
from mlferry.models.quantization.kmeans import kmeans, nearest
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn

Floats = NDArray[np.float32]
LutFunction = Callable[[int, Floats], Any]
_CHUNK = 1 << 18  # values worked on at a time


@dataclass(frozen=True)
class Linear:
    """``indices * scale + bias``; scale and bias of length 1 or channels."""

    indices: NDArray[np.uint8]
    scale: ArrayLike
    bias: ArrayLike

    def write(self, target: nn.WeightParams, bits: int) -> None:
        """Store it."""
        weights.write_linear(target, self.indices, bits, self.scale, self.bias)


@dataclass(frozen=True)
class Table:
    """``table[indices]``; a shorter table is filled with zeros, to which no index points."""

    indices: NDArray[np.uint8]
    table: Floats

    def write(self, target: nn.WeightParams, bits: int) -> None:
        """Store it."""
        entries = np.zeros(1 << bits, np.float32)
        entries[: self.table.size] = self.table
        weights.write_lut(target, self.indices, bits, entries)


Quantized = Linear | Table


def by_channel(values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Values as [channels, rest]; one row where there is no channel axis."""
    if axis is None:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def from_channels(rows: NDArray[Any], shape: tuple[int, ...], axis: int | None) -> NDArray[Any]:
    """What `by_channel` took apart, in its shape."""
    if axis is None:
        return rows.reshape(shape)
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.moveaxis(rows.reshape(moved), 0, axis)


def _range(rows: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise SpecError("weights that are infinite or no number cannot be quantized")
    return low, high


def to_grid(rows: Floats, scale: Floats, bias: Floats, bits: int) -> NDArray[np.uint8]:
    """The nearest index on each row's grid ``scale * index + bias``."""
    codes = np.empty(rows.shape, np.uint8)
    largest = np.float32((1 << bits) - 1)
    block = max(1, _CHUNK // max(1, rows.shape[1]))
    width = min(rows.shape[1], _CHUNK)
    for top in range(0, rows.shape[0], block):
        lines = slice(top, top + block)
        for left in range(0, rows.shape[1], width):
            part = slice(left, left + width)
            steps = rows[lines, part] - bias[lines, None]
            steps /= scale[lines, None]
            np.rint(steps, out=steps)
            np.clip(steps, 0, largest, out=steps)
            codes[lines, part] = steps
    return codes


def linear(values: Floats, axis: int | None, bits: int) -> Linear:
    """Evenly spaced values from the smallest to the largest of each channel.

    No weight moves by more than half a step.
    """
    rows = by_channel(values, axis)
    low, high = _range(rows)
    scale = ((high - low) / ((1 << bits) - 1)).astype(np.float32)
    scale[scale == 0] = 1
    bias = low.astype(np.float32)
    indices = to_grid(rows, scale, bias, bits)
    return Linear(from_channels(indices, values.shape, axis), scale, bias)


def linear_symmetric(values: Floats, axis: int | None, bits: int) -> Linear:
    """Evenly spaced from minus to plus the largest magnitude of each channel; 0 stays 0."""
    rows = by_channel(values, axis)
    low, high = _range(rows)
    half = 1 << (bits - 1)
    scale = (np.maximum(-low, high) / (half - 1)).astype(np.float32)
    scale[scale == 0] = 1
    bias = -half * scale
    indices = to_grid(rows, scale, bias, bits)
    return Linear(from_channels(indices, values.shape, axis), scale, bias)


def linear_lut(values: Floats, axis: int | None, bits: int) -> Table:
    """A table of evenly spaced values from the smallest weight to the largest."""
    even = linear(values, None, bits)
    steps = np.arange(1 << bits, dtype=np.float32)
    return Table(even.indices, steps * np.asarray(even.scale) + np.asarray(even.bias))


def kmeans_lut(values: Floats, axis: int | None, bits: int) -> Table:
    """The table with the smallest squared error."""
    table = kmeans(values, 1 << bits)
    return Table(nearest(values, table).reshape(values.shape), table)


MODES: dict[str, Callable[[Floats, int | None, int], Quantized]] = {
    "linear": linear,
    "linear_symmetric": linear_symmetric,
    "linear_lut": linear_lut,
    "kmeans": kmeans_lut,
}


def distinct(bits: int, values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """A table of the values that there are, and their indices: a `lut_function`.

    Raises:
        SpecError: there are more than the table has entries.
    """
    entries, indices = np.unique(values, return_inverse=True)
    if entries.size > 1 << bits:
        raise SpecError(f"{entries.size} different values do not fit into a table of {bits} bits")
    return np.pad(entries, (0, (1 << bits) - entries.size)), indices


def custom_lut(values: Floats, bits: int, function: LutFunction) -> Table:
    """The table and indices that the user's function gives, checked.

    Raises:
        SpecError: they are no pair, or of the wrong size or kind.
    """
    result = function(bits, values.copy())
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise SpecError(
            f"lut_function returned a {type(result).__name__}; it returns two things: the lookup "
            f"table of {1 << bits} numbers and the index of every weight"
        )
    table, indices = _array("the lookup table", result[0]), _array("the indices", result[1])
    if table.dtype.kind not in "fiub" or table.size != 1 << bits:
        raise SpecError(
            f"lut_function returned a lookup table of {table.size} entries ({table.dtype}); "
            f"{bits} bits need {1 << bits} numbers"
        )
    if not np.isfinite(table.astype(np.float32)).all():
        raise SpecError("lut_function returned a lookup table with an entry that is not finite")
    if indices.size != values.size:
        raise SpecError(
            f"lut_function returned {indices.size} indices for {values.size} weights of shape "
            f"{list(values.shape)}; every weight needs one"
        )
    whole = indices.dtype.kind in "iub" or (
        indices.dtype.kind == "f" and np.array_equal(indices, np.rint(indices))
    )
    if not whole:
        raise SpecError(f"lut_function returned indices that are no integers ({indices.dtype})")
    if indices.size and (indices.min() < 0 or indices.max() >= table.size):
        raise SpecError(
            f"lut_function returned indices from {indices.min()} to {indices.max()}; the table "
            f"of {bits} bits has entries 0 to {table.size - 1}"
        )
    flat = table.astype(np.float32).reshape(-1)
    return Table(indices.astype(np.uint8).reshape(values.shape), flat)


def _array(what: str, value: Any) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise SpecError(f"lut_function: {what} is no array: {error}") from error
