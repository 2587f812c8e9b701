"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.numerics.functions import log_sum_exp
from mlferry.programs.kernels import Array, Call, kernel
from mlferry.programs.reshaping.definition import vector

Axes = tuple[int, ...] | None


_REDUCTIONS: dict[str, Callable[[Array, Axes, bool], Any]] = {
    "reduce_l1_norm": lambda x, a, k: np.abs(x).sum(axis=a, keepdims=k),
    "reduce_l2_norm": lambda x, a, k: np.sqrt(np.square(x).sum(axis=a, keepdims=k)),
    "reduce_log_sum": lambda x, a, k: np.log(x.sum(axis=a, keepdims=k)),
    "reduce_log_sum_exp": log_sum_exp,
    "reduce_max": lambda x, a, k: x.max(axis=a, keepdims=k),
    "reduce_mean": lambda x, a, k: x.mean(axis=a, keepdims=k),
    "reduce_min": lambda x, a, k: x.min(axis=a, keepdims=k),
    "reduce_prod": lambda x, a, k: x.prod(axis=a, keepdims=k),
    "reduce_sum": lambda x, a, k: x.sum(axis=a, keepdims=k),
    "reduce_sum_square": lambda x, a, k: np.square(x).sum(axis=a, keepdims=k),
}
_EXACT = {"reduce_max", "reduce_min"}
_EXTREMES: dict[str, Callable[..., Any]] = {
    "reduce_argmax": np.argmax,
    "reduce_argmin": np.argmin,
}


@kernel(*_EXACT, exact=True)
@kernel(*(_REDUCTIONS.keys() - _EXACT))
def reduce(call: Call, x: Array, axes: Axes, keep_dims: bool) -> Any:
    return _REDUCTIONS[call.op](x, None if axes is None else vector(axes), keep_dims)


@kernel(*_EXTREMES)
def arg_extreme(
    call: Call, x: Array, axis: int, keep_dims: bool, output_dtype: str = "int32"
) -> Any:
    """Of equal values, the first."""
    return _EXTREMES[call.op](x, axis=axis, keepdims=keep_dims)
