"""What many workers give to comparing, searching, quantizing with samples and checking precision.

    python benchmarks/many_samples.py [--samples 96] [--idle] [--docs]

Of SqueezeNet, one BLAS thread a process. First everything runs in this process, then with two
workers that hold their libraries. Counted are processor seconds: those of this process, which hands
out the work and does what cannot be shared, and those of the workers. They do not depend on what
else a machine does, so that the times for more workers are worked out with them:

    seconds(workers) = of this process, alone + of the workers / min(workers, shares)

where `shares` is into how many pieces the work can be cut, and "alone" is while no worker has
anything to do. What this process does while one of the two has is added for more workers than two:
they may be ready earlier. Where samples go one by one and there are many, the longer of both
counts, as both go on at once. The ratio that is measured by the clock needs cores for this process
and two workers that do nothing else: `--idle` says that they do.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import mlferry
from benchmarks.networks import NETWORKS
from benchmarks.pages import PAGE, write_table
from mlferry.models.quantization.walks import GROUPS

R = TypeVar("R")
PAGE_HERE = PAGE.with_name("many-samples.md")
CORES = 16  # of a machine
MEASURED = 2  # workers
BITS = (8, 4)


class Spent(NamedTuple):
    """Processor seconds.

    Attributes:
        alone: of this process, while no worker has anything to do.
        beside: of this process, while one has.
        there: of all workers together.
    """

    alone: float
    beside: float
    there: float


class Watched(Executor):
    """A pool, and how long this process works while none of its workers has anything to do.

    Attributes:
        alone: processor seconds until the workers last had something to do.
    """

    def __init__(self, pool: ProcessPoolExecutor, workers: int) -> None:
        self._pool, self._max_workers = pool, workers
        self._lock = threading.Lock()
        self._pending = 0
        self._idle_since = time.process_time()
        self.alone = 0.0

    def submit(self, work: Callable[..., R], /, *arguments: Any, **options: Any) -> Future[R]:
        """Hand out something."""
        with self._lock:
            if not self._pending:
                self.alone += time.process_time() - self._idle_since
            self._pending += 1
        future = self._pool.submit(work, *arguments, **options)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1
            self._idle_since = time.process_time()

    def ended(self) -> float:
        """All seconds alone, at the end of the work."""
        return self.alone + time.process_time() - self._idle_since


@dataclass
class Task:
    """Something that takes an executor.

    Attributes:
        name: of it.
        run: does it.
        shares: into how many pieces the work can be cut; None for as many as there are samples.
        runs: of which the least counts: in the first one, each process plans.
    """

    name: str
    run: Callable[[Executor | None], object]
    shares: int | None = None
    runs: int = 4

    def seconds(self, spent: Spent, workers: int) -> float:
        """With so many workers."""
        if self.shares is None:
            return spent.alone + max(spent.beside, spent.there / workers)
        at_once = min(workers, self.shares)
        here = spent.alone if at_once <= MEASURED else spent.alone + spent.beside
        return here + spent.there / at_once


def tasks(count: int) -> list[Task]:
    source = NETWORKS["SqueezeNet 1.1"](1).SerializeToString()
    model = mlferry.convert(source)
    program = mlferry.convert(source, convert_to="mlprogram")
    small = mlferry.quantize_weights(model, 4)
    (feature,) = model.spec.description.input
    shape = tuple(feature.type.multiArrayType.shape)
    rng = np.random.default_rng(0)
    samples = [{feature.name: rng.normal(size=shape).astype(np.float32)} for _ in range(count)]
    few = samples[: max(4, count // 12)]
    pieces = len(BITS) * 2 * 3  # modes; by weights alone, and two folds with samples
    return [
        Task(
            "compare_models",
            lambda e: mlferry.compare_models(model, small, samples, executor=e, pictures=False),
        ),
        Task(
            "check_precision",
            lambda e: mlferry.check_precision(program, samples[::4], executor=e),
        ),
        Task(
            "search_quantization",
            lambda e: mlferry.search_quantization(
                model, few, "cosine", -2.0, bits=BITS, executor=e
            ),
            pieces,
            runs=1,
        ),
        Task(
            "quantize_weights, with samples",
            lambda e: mlferry.quantize_weights(model, 4, sample_data=samples, executor=e),
            GROUPS,
            runs=3,
        ),
    ]


def _spent(_: int) -> tuple[int, float]:
    time.sleep(0.02)  # so that each worker answers
    return os.getpid(), time.process_time()


def _of_workers(executor: Executor, workers: int) -> dict[int, float]:
    """The processor seconds that each worker has spent."""
    spent: dict[int, float] = {}
    while len(spent) < workers:
        spent |= dict(executor.map(_spent, range(4 * workers)))
    return spent


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes hold their libraries."""
    with ProcessPoolExecutor(count) as executor:
        _of_workers(executor, count)
        yield executor


def _timed(task: Task, executor: Executor | None) -> tuple[float, float]:
    """Processor seconds of this process, and those of the clock."""
    start, clock = time.process_time(), time.perf_counter()
    task.run(executor)
    return time.process_time() - start, time.perf_counter() - clock


def _shared(task: Task, pool: ProcessPoolExecutor) -> tuple[Spent, float]:
    """The processor seconds with the workers of a pool, and those of the clock."""
    before = sum(_of_workers(pool, MEASURED).values())
    executor = Watched(pool, MEASURED)
    here, clock = _timed(task, executor)
    alone = executor.ended()
    return Spent(alone, here - alone, sum(_of_workers(pool, MEASURED).values()) - before), clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--idle", action="store_true", help="two cores do nothing else")
    parser.add_argument("--docs", action="store_true", help="write docs/many-samples.md's table")
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    for task in tasks(arguments.samples):
        alone = [_timed(task, None)]
        with workers(MEASURED) as pool:
            found = [_shared(task, pool)]
            for _ in range(task.runs - 1):  # by turns, as other work comes and goes
                alone.append(_timed(task, None))
                found.append(_shared(task, pool))
        one, one_clock = map(min, zip(*alone, strict=True))
        spent = Spent(*map(min, zip(*(each for each, _ in found), strict=True)))
        measured = [f"{one_clock / min(clock for _, clock in found):.2f}"] if arguments.idle else []
        ratios = [
            f"{one / task.seconds(spent, count):.2f}" for count in (1, 2, 10 * CORES, 100 * CORES)
        ]
        rows.append([
            task.name, f"{one:.1f} s", f"{spent.alone + spent.beside:.2f} s",
            f"{spent.alone:.2f} s", f"{spent.there:.1f} s", *measured, *ratios,
        ])  # fmt: skip
        print("  ".join(rows[-1]), flush=True)
    if arguments.docs:
        header = [
            "Of SqueezeNet", "One process", "Hands out", "Of it, alone", "Workers",
            *(["By the clock, two"] if arguments.idle else []),
            "One worker", "Two", "10 machines", "100 machines",
        ]  # fmt: skip
        write_table("many samples", header, rows, PAGE_HERE)


if __name__ == "__main__":
    main()
