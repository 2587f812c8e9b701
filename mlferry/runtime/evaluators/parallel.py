"""Several samples at the same time, each on a thread, where that is faster."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from mlferry.runtime.evaluators.registry import Features, Transparent
from mlferry.runtime.threads import Part, at_most, lane_count, share

_MOST = 16  # samples that are held for threads to choose from
_OF_A_THREAD = 4  # likewise, for each thread
_ASKED_AGAIN = 64  # samples after which the slower way is timed again


class Parallel(Transparent):
    """What evaluates the samples of a list one after another, or several at the same time.

    Where compiled code does all of it, it does so for several samples in one call. Elsewhere
    threads wait for the interpreter between layers, so that a network of many small ones is slower
    on several. Which way takes less is measured with the first samples, and now and then again.

    Args:
        threads: how many it uses at most; None for one per core.
        shares: whether several samples may run at the same time: NumPy computes, no class of yours
            runs, and no state or random values depend on their order.

    Attributes:
        has_one_call: whether it has `in_one_call`.
    """

    has_one_call: ClassVar[bool] = False

    def __init__(self, threads: int | None, *, shares: bool) -> None:
        lanes = min(lane_count(_MOST), threads or _MOST)
        self._threads = threads
        self._in_one_call = shares and self.has_one_call  # until it turns out to be impossible
        self._held = min(_MOST, _OF_A_THREAD * lanes)
        self._most = self._held if shares and lanes > 1 else 1
        self._seconds: dict[bool, float] = {}  # of a sample, by whether others ran with it
        self._untimed = {False, True}  # the first time waits for plans and kernels
        self._since = 0  # samples since both ways were timed

    @abstractmethod
    def __call__(self, data: Features) -> dict[str, Any]:
        """The outputs for the features of a sample."""

    def in_one_call(self, samples: Sequence[Features]) -> list[dict[str, Any]] | None:
        """The outputs for several samples; None where Python has to run for each."""
        return None

    def next_count(self, held: int = 0) -> int:
        """How many samples `several` should get next.

        Args:
            held: how many are in memory anyway. Threads wait for each other at the end of some
                samples, so that more at a time are faster.
        """
        if self._in_one_call and (held or False in self._seconds):
            return max(self._held, min(held, _ASKED_AGAIN))
        left = _ASKED_AGAIN - self._since
        if len(self._seconds) < 2:
            return self._most if False in self._seconds else 1
        if self._is_faster_together():
            return max(self._most, min(held, left)) if left > 0 else 1
        return 1 if left > 0 else self._most

    def _is_faster_together(self) -> bool:
        return self._seconds[True] < self._seconds[False]

    def several(self, samples: Sequence[Features]) -> list[dict[str, Any]]:
        """The outputs for several samples, each by one of the threads that are free.

        Raises:
            PredictionError: one of the samples does not fit.
        """
        if self._in_one_call and len(samples) > 1:
            results = self.in_one_call(samples)
            if results is not None:
                return results
            self._in_one_call = False
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
