"""Half precision in float32 arrays: rounding to it and widening from it, faster than by casts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled import is_active
from mlferry.numerics.shapes import Array

LARGEST = 65504.0
"""The largest finite number of float16."""
LEAST_WHOLE = 2.0**-14
"""The smallest number that float16 holds with all of its digits."""

_BLOCK = 1 << 15  # how many numbers stay in the cache
_FEW = 512  # below this many, casts are faster
# The bits of float32 that hold the exponent, and the sign.
_EXPONENT, _SIGN = np.int32(0x7F800000), np.int32(-(2**31))
_LARGE = 142 << 23  # the exponent of 2**15
_NORMAL = np.float32(LEAST_WHOLE)
_SMALLEST = np.float32(np.finfo(np.float16).smallest_subnormal)
_LEAST = np.full(_BLOCK, _NORMAL)
_TOP = np.int16(0x7C00)  # the exponent of infinities and NaN
_KEPT, _REBIASED = np.int32(0x8FFFFFFF - 2**32), np.float32(2.0**112)
# Thirteen bits above a number and a half: adding it leaves eleven bits of the number.
_ABOVE = np.int32((13 << 23) | 0x400000)


def narrowed(array: NDArray[np.float32]) -> NDArray[np.float16]:
    """Numbers as float16; one that would become zero becomes the smallest of its sign.

    What divides by it, or takes its logarithm, stays finite.
    """
    halves = np.empty(array.shape, np.float16)
    narrow_into(array, halves)
    return halves


def narrow_into(array: NDArray[np.float32], out: NDArray[np.float16]) -> None:
    """As `narrowed`, into an existing array."""
    with np.errstate(over="ignore"):
        np.copyto(out, array, casting="same_kind")
    # NumPy compares halves one by one, but their bits many at a time
    vanished = ((out.view(np.uint16) & 0x7FFF) == 0) & (array != 0)
    if vanished.any():
        out[vanished] = np.copysign(_SMALLEST, array[vanished])


def rounded(array: Array) -> NDArray[np.float32]:
    """Numbers rounded to float16, in float32: ties go to even, values beyond `LARGEST` to infinity.

    Args:
        array: of float32 or another float type; it is not changed.
    """
    wide = np.ascontiguousarray(array, np.float32).reshape(np.shape(array))
    if wide.size <= _FEW:
        return wide.astype(np.float16).astype(np.float32)
    if is_active():
        from mlferry.compiled.functions import applied

        return applied("half", wide)
    result = np.empty_like(wide)
    round_into(wide.reshape(-1), result.reshape(-1))
    return result


def round_into(array: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """As `rounded`, into an existing array, which may be the same.

    Adding 1.5 * 2**(e + 13) to a number of exponent e rounds it to the eleven bits that float16
    has, and subtracting it gives the rounded number (the float32 sum has 24 bits). Numbers below
    2**-14 round as those of exponent -14 do, as in float16.
    """
    step = max(1, _BLOCK // max(array[:1].size, 1))
    shape = (min(step, len(array)), *array.shape[1:])
    exponents, signs = np.empty(shape, np.int32), np.empty(shape, np.int32)
    size = exponents.size
    normal = _LEAST[:size].reshape(shape) if size <= _BLOCK else np.full(shape, _NORMAL)
    for start in range(0, len(array), step):
        number, result = array[start : start + step], out[start : start + step]
        count = len(number)
        bits, sign = exponents[:count], signs[:count]
        codes, whole, addend = number.view(np.int32), result.view(np.int32), bits.view(np.float32)
        np.bitwise_and(codes, _EXPONENT, out=bits)
        if np.maximum.reduce(bits, axis=None, initial=0) >= _LARGE:
            np.copyto(result, number.astype(np.float16))  # some may round to infinity
            continue
        np.bitwise_and(codes, _SIGN, out=sign)
        np.maximum(addend, normal[:count], out=addend)
        np.add(bits, _ABOVE, out=bits)
        np.add(number, addend, out=result)
        np.subtract(result, addend, out=result)
        np.bitwise_or(whole, sign, out=whole)  # a zero keeps its sign


def widen_into(array: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Finite numbers of float16 in float32.

    The bits of float16, shifted left by thirteen, are those of the number divided by 2**112.

    Args:
        array: of the shape of `out`, in any order in memory.
        out: the array to write to, in row-major order.
    """
    codes, whole = array.view(np.int16), out.view(np.int32)
    step = max(1, _BLOCK // max(array[:1].size, 1))
    for start in range(0, len(array), step):
        bits, result = whole[start : start + step], out[start : start + step]
        np.copyto(bits, codes[start : start + step])
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _KEPT, out=bits)  # the sign was copied into four bits
        np.multiply(result, _REBIASED, out=result)


def is_finite(array: NDArray[np.float16]) -> bool:
    """Whether all numbers are finite."""
    return bool((array.view(np.int16) & _TOP != _TOP).all())


def wide(array: NDArray[np.float16]) -> NDArray[np.float32]:
    """Numbers of float16 as float32, in the order of their axes."""
    if array.ndim == 0 or array.size <= _FEW or not is_finite(array):
        return np.asarray(array).astype(np.float32, order="C")
    result = np.empty(array.shape, np.float32)
    widen_into(array, result)
    return result
