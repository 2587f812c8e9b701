"""Several samples at the same time, each on a thread, where that is faster."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from mlferry.runtime.evaluators.registry import Features, Transparent
from mlferry.runtime.threads import Part, at_most, lane_count, share

_MOST = 16  # samples that are under way
_OF_A_THREAD = 4  # likewise, for each thread
_ASKED_AGAIN = 64  # samples after which the slower way is timed again


class Parallel(Transparent):
    """What evaluates the samples of a list one after another, or several at the same time.

    Threads wait for the interpreter between layers, so that a network of many small ones is slower
    on several. Which way takes less is measured with the first samples, and now and then again.

    Args:
        threads: how many it uses at most; None for one per core.
        shares: whether several samples may run at the same time: NumPy computes, no class of yours
            runs, and no state or random values depend on their order.
    """

    def __init__(self, threads: int | None, *, shares: bool) -> None:
        lanes = min(lane_count(_MOST), threads or _MOST)
        self._threads = threads
        self._most = min(_MOST, _OF_A_THREAD * lanes) if shares and lanes > 1 else 1
        self._seconds: dict[bool, float] = {}  # of a sample, by whether others ran with it
        self._untimed = {False, True}  # the first time waits for plans and kernels
        self._since = 0  # samples since both ways were timed

    @abstractmethod
    def __call__(self, data: Features) -> dict[str, Any]:
        """The outputs for the features of a sample."""

    def next_count(self) -> int:
        """How many samples `several` should get next."""
        if len(self._seconds) < 2:
            together = False in self._seconds
        else:
            together = self._is_faster_together() == (self._since < _ASKED_AGAIN)
        return self._most if together else 1

    def _is_faster_together(self) -> bool:
        return self._seconds[True] < self._seconds[False]

    def several(self, samples: Sequence[Features]) -> list[dict[str, Any]]:
        """The outputs for several samples, each by one of the threads that are free.

        Raises:
            PredictionError: one of the samples does not fit.
        """
        start = time.perf_counter()
        together = len(samples) > 1
        results = self._shared(samples) if together else [self(samples[0])]
        seconds = (time.perf_counter() - start) / len(samples)
        if together in self._untimed:
            self._untimed.remove(together)
            return results
        self._seconds[together] = seconds
        is_best = len(self._seconds) == 2 and together == self._is_faster_together()
        self._since = self._since + len(samples) if is_best else 0
        return results

    def _shared(self, samples: Sequence[Features]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = [{} for _ in samples]

        def part(index: int) -> Part:
            return lambda: results.__setitem__(index, self(samples[index]))

        parts = [part(index) for index in range(len(samples))]
        with at_most(self._threads):
            share([parts] * lane_count(len(samples)))
        return results
