"""Integers of less than a byte, packed into a stream of bits, the least significant first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.numerics.shapes import Array


def unpacked(data: NDArray[np.uint8], bits: int, count: int, *, signed: bool = False) -> Array:
    """`count` integers of `bits` bits each, as bytes.

    Args:
        data: the stream; element i has the bits i * bits to (i + 1) * bits - 1.
        bits: 1 to 7.
        signed: whether they are in two's complement.
    """
    groups = -(-count // 8)
    octets = np.zeros((groups, 8), np.uint8)
    whole = np.zeros(groups * bits, np.uint8)
    used = data.reshape(-1)[: groups * bits]
    whole[: used.size] = used
    octets[:, :bits] = whole.reshape(groups, bits)
    words = octets.view("<u8")[:, 0]
    values = np.empty((groups, 8), np.uint8)
    mask = np.uint64((1 << bits) - 1)
    for place in range(8):
        values[:, place] = (words >> np.uint64(bits * place)) & mask
    values = values.reshape(-1)[:count]
    if not signed:
        return values
    shift = 8 - bits
    return (values << shift).astype(np.uint8).view(np.int8) >> shift


def packed(values: Array, bits: int) -> bytes:
    """Integers of `bits` bits each, as the stream that `unpacked` reads."""
    codes = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
    if bits == 1:
        return np.packbits(codes & 1, bitorder="little").tobytes()
    if 8 % bits == 0:  # whole integers in each byte
        each = 8 // bits
        parts = np.zeros((-(-codes.size // each), each), np.uint8)
        np.bitwise_and(codes, (1 << bits) - 1, out=parts.reshape(-1)[: codes.size])
        for place in range(1, each):
            parts[:, 0] |= parts[:, place] << (bits * place)
        return parts[:, 0].tobytes()
    groups = -(-codes.size // 8)
    whole = np.zeros(groups * 8, np.uint8)
    np.bitwise_and(codes, (1 << bits) - 1, out=whole[: codes.size])
    octets = whole.reshape(groups, 8)
    words = np.zeros(groups, "<u8")
    for place in range(8):  # every 8 integers are `bits` bytes
        words |= octets[:, place].astype("<u8") << np.uint64(bits * place)
    stream = words.view(np.uint8).reshape(groups, 8)[:, :bits]
    return stream.tobytes()[: -(-codes.size * bits // 8)]
