"""How a prediction uses the cores: one BLAS thread, and threads of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import numpy as np

from mlferry.compiled import using
from mlferry.lanes import (
    Part,
    Shared,
    Walk,
    allowed_lanes,
    at_most,
    cores,
    lane_count,
    run_steps,
    share,
)
from mlferry.runtime.threads.blas import one_thread

__all__ = [
    "Part",
    "Shared",
    "allowed_lanes",
    "as_needed",
    "at_most",
    "computing",
    "cores",
    "lane_count",
    "on_numpy",
    "one_thread",
    "run_steps",
    "share",
]


@contextlib.contextmanager
def computing(threads: int | None, compiled: bool | None) -> Iterator[None]:
    """Inside, kernels run on so many threads at most, compiled or not, and never warn."""
    with at_most(threads), using(compiled), on_numpy():
        yield


@contextlib.contextmanager
def on_numpy() -> Iterator[None]:
    """Inside, NumPy multiplies on one BLAS thread, and never warns."""
    with np.errstate(all="ignore"), one_thread():
        yield


def as_needed(runs: Iterable[Part]) -> Callable[[], AbstractContextManager[None]]:
    """Gives what these parts run in: `on_numpy`, or nothing where compiled code does them all.

    To enter the former takes as long as a small network.
    """
    compiled = all(isinstance(run, Walk) for run in runs)
    return contextlib.nullcontext if compiled else on_numpy
