"""One thread beside all cores, and two processes at once.

    python benchmarks/cores.py [--runs 6] [--seconds 2] [--json FILE] [--docs]

Alone: the default beside `threads=1`, rounds of both by turns in one process, at batch 1, and for a
list of sixteen samples. In the same rounds: products that have nothing to do with each other, on
one thread and on one for each core. These show what the cores give at that moment, as other work on
the host and a lower clock with all of them cost everything the same. Two at once: the seconds of a
prediction in two processes that run together, by default and with `threads=1` each, by turns. A
ratio is the median of those of the rounds, as a processor's clock changes from one to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ROUNDS = 9
ROUNDS_OF_TWO = 5
SAMPLES = 16
LEAST = 0.1  # seconds
PRODUCT = 256  # rows and columns of matrices that stay in the cache of a core
RATE = 30e9  # multiplications a second, roughly what one core does


def prepared(name: str, threads: int | None) -> tuple[Any, dict[str, Any]]:
    """A model, and a sample of it."""
    import mlferry
    from benchmarks.networks import NETWORKS

    spec = mlferry.convert(NETWORKS[name](1).SerializeToString()).get_spec()
    (feature,) = spec.description.input
    kind = feature.type.multiArrayType
    rng = np.random.default_rng(0)
    shape = tuple(kind.shape)
    integers = kind.dataType == kind.INT32
    sample = rng.integers(0, 2000, shape) if integers else rng.normal(0, 1, shape)
    data = {feature.name: sample if integers else sample.astype(np.float32)}
    return mlferry.MLModel(spec, threads=threads), data


def seconds(work: Callable[[], Any], runs: int) -> list[float]:
    """Of each run, after one that counts for nothing; more of them where they are short."""
    work()
    found: list[float] = []
    while len(found) < runs or sum(found) < LEAST:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


class Independent:
    """Products of matrices: the same number for each core, and nothing shared."""

    def __init__(self) -> None:
        from mlferry.runtime.threads import one_thread

        self._one_thread = one_thread
        self._count = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._count)
        values = np.random.default_rng(0).normal(0, 1, (self._count, PRODUCT, PRODUCT))
        self._matrices = list(values.astype(np.float32))

    def _multiply(self, matrix: np.ndarray) -> None:
        for _ in range(max(1, round(LEAST / self._count * RATE / PRODUCT**3))):
            matrix @ matrix

    def ratio(self) -> float:
        """The time on all cores, as a part of the time on one."""
        with self._one_thread():
            one, all_cores = (
                statistics.median(seconds(work, 1))
                for work in (
                    lambda: [self._multiply(matrix) for matrix in self._matrices],
                    lambda: list(self._pool.map(self._multiply, self._matrices)),
                )
            )
        return all_cores / one


class Alone(NamedTuple):
    """What rounds found with nothing else running.

    Attributes:
        times: seconds of a prediction on one thread.
        samples: the ratios of all cores to one thread, of predictions.
        lists: likewise, of lists of samples.
        independent: likewise, of `Independent`.
    """

    times: list[float]
    samples: list[float]
    lists: list[float]
    independent: list[float]


def alone(name: str, runs: int) -> Alone:
    """One thread and all cores by turns; see `seconds` for `runs`."""
    one, data = prepared(name, 1)
    all_cores, _ = prepared(name, None)
    samples = [data] * SAMPLES
    found = Alone([], [], [], [])
    independent = Independent()
    for _ in range(ROUNDS):
        for given, count, ratios in ((data, runs, found.samples), (samples, 1, found.lists)):
            single, shared = (
                statistics.median(seconds(lambda m=model, x=given: m.predict(x), count))
                for model in (one, all_cores)
            )
            ratios.append(shared / single)
            if given is data:
                found.times.append(single)
        found.independent.append(independent.ratio())
    return found


def one_of_two(name: str, threads: int | None, length: float) -> None:
    """In a process of its own: predictions for some seconds, once a line is read."""
    model, data = prepared(name, threads)
    model.predict(data)
    print("ready", flush=True)
    sys.stdin.readline()
    found, end = [], time.monotonic() + length
    while time.monotonic() < end:
        start = time.perf_counter()
        model.predict(data)
        found.append(time.perf_counter() - start)
    print(statistics.median(found), flush=True)


def two_at_once(name: str, threads: str, length: float) -> float:
    """Seconds of a prediction, the mean of both processes."""
    command = [sys.executable, __file__, "--one-of-two", name, threads, "--seconds", str(length)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout is not None
        process.stdout.readline()
    made = []
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        made.append(float(process.communicate()[0]))
    return statistics.mean(made)


def measured(name: str, runs: int, length: float) -> dict[str, Any]:
    found = alone(name, runs)
    both = [
        (two_at_once(name, "1", length), two_at_once(name, "default", length))
        for _ in range(ROUNDS_OF_TWO)
    ]
    return {
        "network": name,
        "milliseconds": 1e3 * statistics.median(found.times),
        "ratio": statistics.median(found.samples),
        "ratio of lists": statistics.median(found.lists),
        "ratio of independent products": statistics.median(found.independent),
        "two milliseconds": 1e3 * statistics.median(single for single, _ in both),
        "two ratio": statistics.median(default / single for single, default in both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    parser.add_argument("--one-of-two", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one_of_two:
        name, threads = arguments.one_of_two
        one_of_two(name, None if threads == "default" else int(threads), arguments.seconds)
        return
    from benchmarks.networks import NETWORKS
    from benchmarks.pages import write_table

    rows = []
    print(f"{os.cpu_count()} cores", flush=True)
    for name in NETWORKS:
        row = measured(name, arguments.runs, arguments.seconds)
        rows.append(row)
        print(
            f"{name:<22}{row['milliseconds']:>8.1f} ms{row['ratio']:>7.2f}"
            f"{row['ratio of lists']:>7.2f}{row['ratio of independent products']:>7.2f}"
            f"   two at once {row['two milliseconds']:>8.1f} ms{row['two ratio']:>7.2f}",
            flush=True,
        )
    if arguments.docs:
        write_table(
            "cores",
            ("Network", "One thread", "All cores", "Lists of 16", "Independent products",
             "Two processes, one thread each", "Two by default"),
            [
                (
                    r["network"], f"{r['milliseconds']:.1f} ms", f"{r['ratio']:.2f}",
                    f"{r['ratio of lists']:.2f}", f"{r['ratio of independent products']:.2f}",
                    f"{r['two milliseconds']:.1f} ms", f"{r['two ratio']:.2f}",
                )
                for r in rows
            ],
        )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
