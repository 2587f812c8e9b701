"""Rounding to half precision in float32 arrays, several times as fast as casts there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 65504.0
"""The largest finite number of float16."""

_BLOCK = 1 << 14  # numbers that stay in the cache
_FEW = 512  # for which the casts are faster
_EXPONENT = 0x7F800000  # the bits of float32 that hold it
_LEAST, _MOST = 113 << 23, 143 << 23  # the exponents of 2**-14, the least normal number, and 2**16
# Thirteen bits above a number and a half: adding it leaves eleven bits of the number.
_ABOVE = np.int32((13 << 23) | 0x400000)


def rounded(array: NDArray[Any]) -> NDArray[np.float32]:
    """What float16 holds of numbers, in float32: ties to even, infinities beyond `LARGEST`.

    Adding 1.5 * 2**(e + 13) to a number of exponent e rounds it to the eleven bits that float16
    has, and subtracting it gives the rounded number (the float32 sum has 24 bits). Numbers below
    2**-14 round as those of 2**-14 do, which is how float16 holds them.

    Args:
        array: of float32 or another type of floats; it stays as it is.
    """
    given = np.ascontiguousarray(array, np.float32).reshape(np.shape(array))
    if given.size <= _FEW:
        return given.astype(np.float16).astype(np.float32)
    made = np.empty_like(given)
    numbers, results = given.reshape(-1), made.reshape(-1)
    above = np.empty(_BLOCK, np.int32)
    for start in range(0, numbers.size, _BLOCK):
        number, result = numbers[start : start + _BLOCK], results[start : start + _BLOCK]
        bits = above[: number.size]
        np.bitwise_and(number.view(np.int32), _EXPONENT, out=bits)
        np.clip(bits, _LEAST, _MOST, out=bits)
        np.add(bits, _ABOVE, out=bits)
        addend = bits.view(np.float32)
        np.add(number, addend, out=result)
        np.subtract(result, addend, out=result)
        np.copysign(result, number, out=result)  # a zero keeps its sign
        if not (result.max() <= LARGEST and result.min() >= -LARGEST):
            too_large = np.abs(result) > LARGEST
            result[too_large] = np.copysign(np.float32(np.inf), result[too_large])
    return made
