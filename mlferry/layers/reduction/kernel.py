"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.layers.kernels import Array, kernel
from mlferry.layers.params import Params
from mlferry.layers.reduction.definition import AXES_OF_REDUCE, MODES, reduced_axes
from mlferry.numerics.functions import log_sum_exp

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduceL1": lambda x, **k: np.abs(x).sum(**k),
    "reduceL2": lambda x, **k: np.sqrt(np.square(x).sum(**k)),
    "reduceMax": np.max,
    "reduceMin": np.min,
    "reduceSum": np.sum,
    "reduceProd": np.prod,
    "reduceMean": np.mean,
    "reduceLogSum": lambda x, **k: np.log(x.sum(**k)),
    "reduceSumSquare": lambda x, **k: np.square(x).sum(**k),
    "reduceLogSumExp": log_sum_exp,
}


@kernel(*_REDUCTIONS)
def reduce_nd(params: Params, x: Array) -> Array:
    axes = reduced_axes(params, x.ndim)
    return np.atleast_1d(_REDUCTIONS[params.kind](x, axis=axes, keepdims=params.keepDims))


@kernel("reduce")
def reduce(params: Params, x: Array) -> Array:
    """Reduce the last axes; they stay with extent 1."""
    axes = AXES_OF_REDUCE[params.axis]
    if params.mode == "LOGSUM":
        return np.log(x + params.epsilon).sum(axis=axes, keepdims=True)
    if params.mode == "ARGMAX":
        return np.argmax(x, axis=axes[0], keepdims=True).astype(np.float32)
    return _REDUCTIONS[MODES[params.mode]](x, axis=axes, keepdims=True)
