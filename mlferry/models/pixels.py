"""Thumbnails of values that look like pictures, as PNG files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mlferry.numerics.shapes import Array

Pixels = NDArray[np.uint8]
_SIDE = 112  # pixels of the longer side, at most
_LEAST = 6  # pixels of both sides; anything smaller is not a picture


def preview(value: object) -> Pixels | None:
    """An input as a picture, [height, width] or [height, width, 3]; None if it is not one.

    Args:
        value: an image of Pillow, or an array with one picture, channels first or last. Bytes stay;
            other numbers are spread from black to white.
    """
    if isinstance(value, Mapping | str | bytes | list | tuple):
        return None
    array: Array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return None
    array = np.squeeze(array)
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, -1)
    if (
        array.ndim not in (2, 3)
        or min(array.shape[:2]) < _LEAST
        or array.shape[2:] not in ((), (3,))
    ):
        return None
    array = array[_places(array.shape[0], array.shape)][:, _places(array.shape[1], array.shape)]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        return None
    low, span = floats.min(), floats.max() - floats.min()
    spread: Pixels = ((floats - low) * (255 / span if span else 0)).round().astype(np.uint8)
    return spread


def _places(extent: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The rows or columns to keep so that the longer side is small enough."""
    count = max(1, round(extent * min(1, _SIDE / max(shape[:2]))))
    return ((np.arange(count) + 0.5) * extent / count).astype(np.int64)


def png(pixels: Pixels) -> bytes:
    """A PNG file (ISO/IEC 15948) of [height, width] grey or [height, width, 3] RGB pixels."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # no filter
    color = 0 if pixels.ndim == 2 else 2
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)),
            (b"IDAT", zlib.compress(filtered.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
