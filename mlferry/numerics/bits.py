"""Integers of less than a byte, packed into a stream of bits, the least significant first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpacked(
    data: NDArray[np.uint8], bits: int, count: int, *, signed: bool = False
) -> NDArray[Any]:
    """`count` integers of `bits` bits each, as bytes.

    Args:
        data: the stream; element i has the bits i * bits to (i + 1) * bits - 1.
        bits: 1 to 7.
        count: how many.
        signed: whether they are in two's complement.
    """
    stream = np.unpackbits(data, count=bits * count, bitorder="little").reshape(count, bits)
    values = np.packbits(stream, axis=1, bitorder="little").reshape(count)
    if not signed:
        return values
    shift = 8 - bits
    return (values << shift).astype(np.uint8).view(np.int8) >> shift


def packed(values: NDArray[Any], bits: int) -> bytes:
    """Integers of `bits` bits each, as the stream that `unpacked` reads."""
    stream = np.unpackbits(
        np.ascontiguousarray(values).view(np.uint8).reshape(-1, 1),
        axis=1,
        count=bits,
        bitorder="little",
    )
    return np.packbits(stream.reshape(-1), bitorder="little").tobytes()
