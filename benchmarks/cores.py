"""One thread beside all cores, and two processes at once.

    python benchmarks/cores.py [--runs 12] [--seconds 2] [--json FILE] [--docs]

Alone: the default beside `threads=1`, rounds of both by turns in one process, at batch 1, and for a
list of sixteen samples. Two at once: the seconds of a prediction in two processes that run
together, by default and with `threads=1` each, by turns. A ratio is the median of those of the
rounds, as a processor's clock changes from one to the next.
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
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ROUNDS = 5
SAMPLES = 16
LEAST = 0.1  # seconds


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


def alone(name: str, runs: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds on one thread, and the ratios of all cores to it, of samples and of lists."""
    one, data = prepared(name, 1)
    all_cores, _ = prepared(name, None)
    samples = [data] * SAMPLES
    times: list[float] = []
    ratios: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for given, count, found in zip((data, samples), (runs, 2), ratios, strict=True):
            single, shared = (
                statistics.median(seconds(lambda m=model, x=given: m.predict(x), count))
                for model in (one, all_cores)
            )
            found.append(shared / single)
            if given is data:
                times.append(single)
    return times, *ratios


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
    times, ratios, of_lists = alone(name, runs)
    both = [
        (two_at_once(name, "1", length), two_at_once(name, "default", length))
        for _ in range(ROUNDS)
    ]
    return {
        "network": name,
        "milliseconds": 1e3 * statistics.median(times),
        "ratio": statistics.median(ratios),
        "ratio of lists": statistics.median(of_lists),
        "two milliseconds": 1e3 * statistics.median(single for single, _ in both),
        "two ratio": statistics.median(default / single for single, default in both),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=12)
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
            f"{row['ratio of lists']:>7.2f}   two at once {row['two milliseconds']:>8.1f} ms"
            f"{row['two ratio']:>7.2f}",
            flush=True,
        )
    if arguments.docs:
        write_table(
            "cores",
            ("Network", "One thread", "All cores", "Lists of 16", "Two processes, one thread each",
             "Two by default"),
            [
                (
                    r["network"], f"{r['milliseconds']:.1f} ms", f"{r['ratio']:.2f}",
                    f"{r['ratio of lists']:.2f}", f"{r['two milliseconds']:.1f} ms",
                    f"{r['two ratio']:.2f}",
                )
                for r in rows
            ],
        )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
