"""Matrix products, of which the threads that are free share large ones."""

from __future__ import annotations

import math

import numpy as np

from mlferry.compiled import packs_once
from mlferry.lanes import WORTH_A_THREAD, in_parts
from mlferry.numerics.shapes import Array


def matmul(left: Array, right: Array) -> Array:
    """``left @ right``, by matrices, columns or rows where there is much to do.

    Args:
        left: [..., n, inner].
        right: [..., inner, m].
    """
    if packs_once(left, right):
        from mlferry.compiled.products import multiplied

        return multiplied(left, right)
    if left.ndim > 2 and right.ndim == 2 and left.flags.c_contiguous:
        flat = matmul(left.reshape(-1, left.shape[-1]), right)
        return flat.reshape(*left.shape[:-1], right.shape[-1])
    if min(left.ndim, right.ndim) < 2 or left.shape[:-2] != right.shape[:-2]:
        return _product(left, right)
    result_shape = (*left.shape[:-1], right.shape[-1])
    multiplications = math.prod(result_shape) * left.shape[-1]
    if multiplications < 2 * WORTH_A_THREAD or left.shape[-1] != right.shape[-2]:
        return _product(left, right)
    result = np.empty(result_shape, np.result_type(left, right))
    outer, (rows, columns) = result_shape[:-2], result_shape[-2:]
    if max(outer, default=1) > 1:
        axis = int(np.argmax(outer))
        before = (slice(None),) * axis

        def work(part: slice) -> None:
            place = (*before, part)
            np.matmul(left[place], right[place], out=result[place])

    elif columns >= rows:
        axis = -1

        def work(part: slice) -> None:
            np.matmul(left, right[..., part], out=result[..., part])

    else:
        axis = -2

        def work(part: slice) -> None:
            np.matmul(left[..., part, :], right, out=result[..., part, :])

    in_parts(work, result_shape[axis], multiplications)
    return result


def _product(left: Array, right: Array) -> Array:
    result: Array = np.matmul(left, right)
    return result
