"""Latency of the runtime, beside onnxruntime on the source model.

    python benchmarks/runtime.py [--runs 9] [--batches 1 16] [--threads 1] [--json FILE] [--docs]

Both get the same inputs in one process, by turns; the median of the ratios of neighbouring runs
is shown, with both medians, the largest difference of the results as a part of their range, and
how long converting and the first prediction take. A spatial transformer with a custom layer, from
examples/, is measured beside Keras where Keras is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
HEADER = f"{'network':<22}{'batch':>6}{'ratio':>8}{'mlferry':>11}{'peer':>11}{'difference':>12}"


def measured(ours: Callable[[], Any], theirs: Callable[[], Any], runs: int) -> Row:
    ours()
    theirs()
    pairs = []
    for _ in range(runs):
        start = time.perf_counter()
        theirs()
        between = time.perf_counter()
        ours()
        pairs.append((between - start, time.perf_counter() - between))
    return {
        "ratio": statistics.median(mine / other for other, mine in pairs),
        "mlferry_ms": 1e3 * statistics.median(mine for _, mine in pairs),
        "peer_ms": 1e3 * statistics.median(other for other, _ in pairs),
    }


def difference(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(made - wanted).max() / max(float(np.ptp(wanted)), 1e-12))


def against_onnxruntime(name: str, batch: int, runs: int, threads: int) -> Row:
    import onnxruntime as ort

    import mlferry
    from benchmarks.networks import NETWORKS

    source = NETWORKS[name](batch).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
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
    row = measured(lambda: model.predict(given), lambda: session.run(None, given), runs)
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


def shown(row: Row) -> str:
    return (
        f"{row['network']:<22}{row['batch']:>6}{row['ratio']:>8.2f}{row['mlferry_ms']:>8.1f} ms"
        f"{row['peer_ms']:>8.1f} ms{row['difference']:>12.1e}"
    )


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

    print(HEADER, flush=True)
    rows = []
    for name in NETWORKS:
        for batch in arguments.batches:
            rows.append(against_onnxruntime(name, batch, arguments.runs, int(threads)))
            print(shown(rows[-1]), flush=True)
    keras_row = against_keras(arguments.runs) if alone else None
    if keras_row is not None:
        rows.append(keras_row)
        print(shown(keras_row), flush=True)
    if arguments.docs:
        write_table(
            "runtime" if alone else "threads",
            ("Network", "Batch", "Ratio", "mlferry", "Peer", "Difference"),
            [
                (
                    r["network"], str(r["batch"]), f"{r['ratio']:.2f}", f"{r['mlferry_ms']:.1f} ms",
                    f"{r['peer_ms']:.1f} ms, {r['peer']}", f"{r['difference']:.0e}",
                )
                for r in rows
            ],
        )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
