"""Latency of the runtime, beside onnxruntime on the source model.

    python benchmarks/runtime.py [--runs 9] [--batches 1 16] [--threads 1] [--json FILE] [--docs]

All get the same inputs in one process, by turns, on all cores with pauses between, in which
onnxruntime's threads end asking for work. The median of the ratios of neighbouring runs is shown,
with and without compiled kernels, with the medians, the rate of mlferry as a part of that
of NumPy's large product on one thread, the largest difference of the results as a part of their
range, and how long converting and the first prediction take. A spatial transformer with a custom
layer, from examples/, is measured beside Keras where Keras is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
COLUMNS = (
    "Network", "Batch", "Ratio", "NumPy alone", "mlferry", "Peer", "Of the product", "Difference",
)  # fmt: skip
_PAUSE = 0.12  # seconds: mlferry looks for free cores every 0.05
WIDTHS = (20, 6, 7, 12, 10, 30, 15, 11)


def aligned(columns: Sequence[str]) -> str:
    first, *others = (text.rjust(width) for text, width in zip(columns, WIDTHS, strict=True))
    return " ".join([first.strip().ljust(WIDTHS[0]), *others])


def timed(way: Callable[[], Any], rested: bool) -> list[float]:
    """Seconds of one run; or after a pause of several, behind some that are not timed.

    Threads of another way that still look busy would keep mlferry from using their cores.
    """
    if rested:
        time.sleep(_PAUSE)
        end = time.perf_counter() + _PAUSE
        while time.perf_counter() < end:
            way()
    seconds = []
    for _ in range(5 if rested else 1):
        start = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - start)
    return seconds


def measured(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    runs: int,
    on_numpy: Callable[[], Any] | None = None,
    rested: bool = False,
) -> Row:
    """Medians of runs by turns."""
    ways = [theirs, ours, *([on_numpy] if on_numpy else [])]
    for way in ways:
        way()
    times: list[list[float]] = []
    for _ in range(runs):
        times.append([])
        for way in ways:
            times[-1].append(statistics.median(timed(way, rested)))
    row = {
        "ratio": statistics.median(mine / other for other, mine, *_ in times),
        "mlferry_ms": 1e3 * statistics.median(mine for _, mine, *_ in times),
        "peer_ms": 1e3 * statistics.median(other for other, *_ in times),
    }
    if on_numpy:
        row["numpy_ratio"] = statistics.median(alone / other for other, _, alone in times)
    return row


def difference(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(made - wanted).max() / max(float(np.ptp(wanted)), 1e-12))


def against_onnxruntime(name: str, batch: int, runs: int, threads: int) -> Row:
    import onnxruntime as ort

    import mlferry
    from benchmarks.networks import NETWORKS
    from benchmarks.work import operations

    network = NETWORKS[name](batch)
    source = network.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # once it has an answer
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    given = {
        i.name: rng.integers(0, 2000, i.shape) if "int" in i.type
        else rng.normal(0, 1, i.shape).astype(np.float32)
        for i in session.get_inputs()
    }  # fmt: skip
    start = time.perf_counter()
    spec = mlferry.convert(source).get_spec()
    converted = time.perf_counter()
    model = mlferry.MLModel(spec, threads=threads)
    (made,) = model.predict(given).values()
    first = time.perf_counter()
    (wanted,) = session.run(None, given)
    on_numpy = mlferry.MLModel(spec, threads=threads, compiled=False)
    row = measured(
        lambda: model.predict(given),
        lambda: session.run(None, given),
        runs,
        lambda: on_numpy.predict(given),
        rested=threads > 1,
    )
    row["rate"] = operations(network) / row["mlferry_ms"] * 1e3
    told = {"network": name, "batch": batch, "peer": f"onnxruntime {ort.__version__}"}
    return {
        **told, **row, "difference": difference(made, wanted),
        "convert_s": converted - start, "first_s": first - converted,
    }  # fmt: skip


def against_keras(runs: int) -> Row | None:
    """The digit reader of examples/, whose sampler is a custom layer in both."""
    try:
        import keras
    except ImportError:
        return None
    import mlferry

    folder = Path(__file__).parent.parent / "examples" / "spatial_transformer"
    sys.path[:0] = [str(folder), str(mlferry.examples.FOLDER)]
    import grid_sampler
    import train

    def entry(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams(
            "GridSampler",
            parameters={"output_height": node.output_height, "output_width": node.output_width},
        )

    path = str(mlferry.examples.path("digits_stn.h5"))
    classes = {"GridSampler": train.GridSampler}
    theirs = keras.models.load_model(path, custom_objects=classes, compile=False)
    spec = mlferry.convert(path, custom_conversion_functions={"GridSampler": entry}).get_spec()
    model = mlferry.MLModel(
        spec, custom_layers={"GridSampler": grid_sampler.GridSampler}, threads=1
    )
    image = np.load(mlferry.examples.path("digits_stn.npz"))["x"][:1].astype(np.float32) / 255
    (feature,) = spec.description.input
    (made,) = model.predict({feature.name: image}).values()
    wanted = np.asarray(theirs(image))
    row = measured(
        lambda: model.predict({feature.name: image}), lambda: np.asarray(theirs(image)), runs
    )
    told = {"network": "spatial transformer", "batch": 1, "peer": f"Keras {keras.__version__}"}
    return {**told, **row, "difference": difference(made, wanted)}


def shown(row: Row, product: float) -> tuple[str, ...]:
    """The columns of the table of a row, for the rate of a large product."""
    return (
        row["network"], str(row["batch"]), f"{row['ratio']:.2f}",
        f"{row['numpy_ratio']:.2f}" if "numpy_ratio" in row else "", f"{row['mlferry_ms']:.1f} ms",
        f"{row['peer_ms']:.1f} ms, {row['peer']}",
        f"{row['rate'] / product:.2f}" if "rate" in row else "", f"{row['difference']:.0e}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=1, help="0 for all cores")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    arguments = parser.parse_args()
    alone = arguments.threads == 1
    threads = str(arguments.threads or os.cpu_count())
    if os.environ.get("OPENBLAS_NUM_THREADS") != threads:  # read when NumPy is imported
        os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), threads)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from benchmarks.networks import NETWORKS
    from benchmarks.pages import write_table
    from benchmarks.work import processor, rate_of_product

    product = rate_of_product()
    machine = processor(), f"{product / 1e9:.0f} GFLOP/s"
    print(*machine, sep=": ")
    print(aligned(COLUMNS), flush=True)
    rows = []
    for name in NETWORKS:
        for batch in arguments.batches:
            rows.append(against_onnxruntime(name, batch, arguments.runs, int(threads)))
            print(aligned(shown(rows[-1], product)), flush=True)
    keras_row = against_keras(arguments.runs) if alone else None
    if keras_row is not None:
        rows.append(keras_row)
        print(aligned(shown(keras_row, product)), flush=True)
    if arguments.docs:
        write_table(
            "runtime" if alone else "threads",
            COLUMNS,
            [shown(row, product) for row in rows],
        )
        if alone:
            write_table("machine", ("Processor", "Product of 1,000 x 1,000, NumPy"), [machine])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
