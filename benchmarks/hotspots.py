"""What the time of a prediction goes to, for each network of the runtime's benchmark.

    python benchmarks/hotspots.py [--runs 30] [--docs]

One thread, one sample. The steps of a planned part, and the layers between the parts, are timed
one by one, in their order; the rest is what the session does around them.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.networks import NETWORKS
from benchmarks.pages import write_table

# The functions of a plan that are no layer kinds, as people call them.
SHOWN = {
    "pointwise": "1 x 1 convolutions", "unfolded": "unfolded convolutions",
    "convolved": "convolutions", "depthwise": "depthwise convolutions",
    "grouped": "grouped convolutions", "transposed": "transposed convolutions", "pool": "pooling",
    "OverSpace": "global pooling", "InstanceNormalization": "instance normalization",
    "instance_normalized": "instance normalization", "_alone": "value by value",
    "_Kernel": "convolutions and pooling", "filling": "borders", "copying": "copies",
    "Joined": "sums of maps", "Repeated": "upsampling", "ArrayPlan": "kernels of NumPy",
}  # fmt: skip


def compiled_steps(run: Any, product: str) -> list[tuple[str, Callable[[], Any]]]:
    """The steps of a table, one by one, with what they are; `product` is what multiplies."""
    from mlferry.compiled import arithmetic, functions, moments, recurrent, rows, windows, winograd
    from mlferry.compiled.tasks import Table

    names = {
        windows.convolve: product, winograd.convolve_in_tiles: product,
        windows.fill_pixels: "borders", windows.copy_pixels: "copies",
        rows.normalize: "layer normalization", rows.softmax: "softmax",
        functions.apply: "value by value", arithmetic.combine: "value by value",
        arithmetic.move_apart: "copies", arithmetic.gather_rows: "copies",
        recurrent.walk: "LSTM steps", moments.describe_lines: "instance normalization",
        moments.find_factors: "instance normalization",
    }  # fmt: skip
    of_windows = {
        windows.WEIGHTED: "depthwise convolutions", windows.LARGEST: "pooling",
        windows.SUM: "sums of windows", windows.SCALED: "instance normalization",
    }  # fmt: skip

    def name_of(task: Any) -> str:
        return names[task.kind] if task.kind in names else of_windows[task.function]

    return [(name_of(step[0]), Table([step])) for step in run.steps]


def in_turn(works: Sequence[Callable[[], Any]], runs: int) -> list[float]:
    """Median seconds of each, one after another as in a prediction."""
    found: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for work, times in zip(works, found, strict=True):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in found]


def shares(name: str, runs: int) -> tuple[float, Counter[str]]:
    """Seconds of a prediction, and of each kind of work in it."""
    import mlferry
    from mlferry.runtime.planned.arrays.region import ArrayRegion
    from mlferry.runtime.threads import at_most

    spec = mlferry.convert(NETWORKS[name](1).SerializeToString()).get_spec()
    model = mlferry.MLModel(spec, threads=1)
    (feature,) = model.get_spec().description.input
    shape = tuple(feature.type.multiArrayType.shape)
    rng = np.random.default_rng(0)
    integers = feature.type.multiArrayType.dataType == feature.type.multiArrayType.INT32
    x = rng.integers(0, 2000, shape) if integers else rng.normal(0, 1, shape).astype(np.float32)
    model.predict({feature.name: x})
    session, (output,) = model.session, [o.name for o in model.get_spec().description.output]
    program = session._program(frozenset([output]))
    blobs: dict[str, Any] = {**program.constants, feature.name: np.asarray(x, np.float32)}
    works: list[tuple[str, Callable[[], Any]]] = []
    with np.errstate(all="ignore"), at_most(1):
        for part in program.parts:
            made = part.region.run(blobs) if part.region else None
            if made == {}:  # it ran with the part before
                continue
            if made is not None and part.region:
                blobs |= made
                product = "products" if isinstance(part.region, ArrayRegion) else "convolutions"
                for plans in part.region.pool.plans.values():
                    for run in plans[0].runs:
                        if hasattr(run, "steps"):
                            works += compiled_steps(run, product)
                        else:
                            works.append((SHOWN[_function(run)], run))
                continue
            for step in part.steps:
                session._run(step, blobs)
                works.append((step.params.kind, functools.partial(session._run, step, blobs)))
        whole = functools.partial(model.predict, {feature.name: x})
        *times, total = in_turn([*(work for _, work in works), whole], runs)
    found: Counter[str] = Counter()
    for (what, _), seconds in zip(works, times, strict=True):
        found[what] += seconds
    return total, found


def _function(run: Any) -> str:
    """The function or class that planned it, found by one of its parts where threads share it."""
    from mlferry.lanes import Shared

    while isinstance(run, functools.partial | Sequence | Shared):
        run = run.lanes if isinstance(run, Shared) else run
        run = run.args[0] if isinstance(run, functools.partial) else run[0]
    return str(run.__qualname__.split(".")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    arguments = parser.parse_args()
    rows = []
    for name in NETWORKS:
        total, found = shares(name, arguments.runs)
        found["around them"] = max(0.0, total - sum(found.values()))
        top = [f"{what} {100 * t / total:.0f} %" for what, t in found.most_common(4)]
        rows.append((name, ", ".join(top)))
        print(f"{name}: {1e3 * total:.1f} ms: {rows[-1][1]}", flush=True)
    if arguments.docs:
        write_table("hotspots", ("Network", "Where its time goes"), rows)


if __name__ == "__main__":
    main()
