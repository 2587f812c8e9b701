"""Normalization of rows, which layers and program ops share."""

from __future__ import annotations

import numpy as np

from mlferry.compiled import is_active
from mlferry.lanes import in_rows
from mlferry.numerics.shapes import Array


def standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Values with mean 0 and variance 1 over some axes; `epsilon` is added to variances."""
    centered: Array = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centered).mean(axis=axes, keepdims=True)
    centered /= np.sqrt(variance + np.float32(epsilon))
    return centered


def layer_normalized(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Standardized over the last axes, times a factor and plus a shift for each of their places.

    Args:
        x: [..., *shape].
        gamma: the factors, [*shape].
        beta: the shifts, [*shape].
        epsilon: what is added to variances.
    """
    if is_active() and x.size and x.dtype == gamma.dtype == beta.dtype == np.float32:
        from mlferry.compiled.rows import normalize_rows

        rows = np.ascontiguousarray(x).reshape(-1, gamma.size)
        y = np.empty_like(rows)
        factors, shifts = (np.ascontiguousarray(each).reshape(-1) for each in (gamma, beta))
        small = np.float32(epsilon)
        in_rows(lambda part: normalize_rows(rows[part], factors, shifts, small, y[part]), rows)
        return y.reshape(x.shape)
    result = standardized(x, tuple(range(-gamma.ndim, 0)), epsilon)
    result *= gamma
    result += beta
    return result
