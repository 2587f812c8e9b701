"""What many workers give to comparing, searching, quantizing with samples and checking precision.

    python benchmarks/many_samples.py [--samples 48] [--idle] [--docs]

Of SqueezeNet, one BLAS thread a process. First everything runs in this process, then with two
workers that hold their libraries. Counted are processor seconds: those of this process, which hands
out the work and does what cannot be shared, and those of the workers. They do not depend on what
else a machine does, so that the times for more workers are worked out with them:

    seconds(workers) = of this process + of the workers / min(workers, shares)

where `shares` is into how many pieces the work can be cut. Where samples go one by one and there
are many, the longer of both counts, as both go on at once. The ratio that is measured by the clock
needs two cores that do nothing else: `--idle` says that they do.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import mlferry
from benchmarks.networks import NETWORKS
from benchmarks.pages import PAGE, write_table
from mlferry.models.quantization.walks import GROUPS

PAGE_HERE = PAGE.with_name("many-samples.md")
CORES = 16  # of a machine
BITS = (8, 4)


@dataclass
class Task:
    """Something that takes an executor.

    Attributes:
        name: of it.
        run: does it.
        shares: into how many pieces the work can be cut; None for as many as there are samples.
    """

    name: str
    run: Callable[[Executor | None], object]
    shares: int | None = None

    def seconds(self, here: float, there: float, workers: int) -> float:
        """With so many workers, of the processor seconds here and in all workers together."""
        if self.shares is None:
            return max(here, there / workers)
        return here + there / min(workers, self.shares)


def tasks(count: int) -> list[Task]:
    source = NETWORKS["SqueezeNet 1.1"](1).SerializeToString()
    model = mlferry.convert(source)
    program = mlferry.convert(source, convert_to="mlprogram")
    small = mlferry.quantize_weights(model, 4)
    (feature,) = model.spec.description.input
    shape = tuple(feature.type.multiArrayType.shape)
    rng = np.random.default_rng(0)
    samples = [{feature.name: rng.normal(size=shape).astype(np.float32)} for _ in range(count)]
    few = samples[: max(4, count // 6)]
    pieces = len(BITS) * 2 * 3  # modes; by weights alone, and two folds with samples
    return [
        Task(
            "compare_models",
            lambda e: mlferry.compare_models(model, small, samples, executor=e, pictures=False),
        ),
        Task(
            "check_precision",
            lambda e: mlferry.check_precision(program, samples, executor=e),
        ),
        Task(
            "search_quantization",
            lambda e: mlferry.search_quantization(
                model, few, "cosine", -2.0, bits=BITS, executor=e
            ),
            pieces,
        ),
        Task(
            "quantize_weights, with samples",
            lambda e: mlferry.quantize_weights(model, 4, sample_data=samples, executor=e),
            GROUPS,
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


def _shared(task: Task, executor: Executor) -> tuple[float, float, float]:
    """Processor seconds of this process, those of the clock, and those of two workers."""
    before = sum(_of_workers(executor, 2).values())
    here, clock = _timed(task, executor)
    return here, clock, sum(_of_workers(executor, 2).values()) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--idle", action="store_true", help="two cores do nothing else")
    parser.add_argument("--docs", action="store_true", help="write docs/many-samples.md's table")
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    for task in tasks(arguments.samples):
        runs = 4 if task.shares is None else 1  # the least of several, as the first plans, too
        alone, alone_clock = map(min, zip(*(_timed(task, None) for _ in range(runs)), strict=True))
        with workers(2) as executor:
            found = [_shared(task, executor) for _ in range(runs)]
        here, clock, there = map(min, zip(*found, strict=True))
        measured = [f"{alone_clock / clock:.2f}"] if arguments.idle else []
        ratios = [
            f"{alone / task.seconds(here, there, count):.2f}"
            for count in (1, 2, 10 * CORES, 100 * CORES)
        ]
        rows.append([
            task.name, f"{alone:.1f} s", f"{here:.2f} s", f"{there:.1f} s", *measured, *ratios,
        ])  # fmt: skip
        print("  ".join(rows[-1]), flush=True)
    if arguments.docs:
        header = [
            "Of SqueezeNet", "One process", "Hands out", "Workers",
            *(["By the clock, two"] if arguments.idle else []),
            "One worker", "Two", "10 machines", "100 machines",
        ]  # fmt: skip
        write_table("many samples", header, rows, PAGE_HERE)


if __name__ == "__main__":
    main()
