"""One network as an ML Program, as a neural network and as ONNX: latency and memory.

    python benchmarks/programs.py [--runs 15] [--json FILE] [--docs]

The ONNX models of `benchmarks/networks.py` go to a neural network by mlferry, and to programs of
float32 and float16 by onnx2coreml, which has coremltools write them. All of them are run by turns
in one process, with one thread: on NumPy beside the neural network, on onnxruntime beside
onnxruntime with the ONNX model. The ratios are medians over neighbouring runs, the difference is
the largest of a program of float32 as a part of the range of the results. Memory is what a process
of its own holds at its peak beyond what it held before, as a multiple of the file of the weights:
after opening a model and one prediction, mapped pages of the file included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.networks import NETWORKS
from benchmarks.processes import apart, measured

Row = dict[str, Any]
NAMES = ("SqueezeNet 1.1", "ResNet-50", "MobileNetV2", "style", "U-Net", "transformer encoder")
FILES = {"network": "model.mlmodel", "float32": "fp32.mlpackage", "float16": "fp16.mlpackage"}
ENGINE = {"engine": "onnxruntime"}
WAYS: dict[str, tuple[str, Row]] = {
    "network": ("network", {}),
    "float32": ("float32", {"precision": "exact"}),
    "float16, exact": ("float16", {"precision": "exact"}),
    "float16, half": ("float16", {"precision": "half"}),
    "float16, half, not widened": ("float16", {"precision": "half", "widened": False}),
    "engine, network": ("network", ENGINE),
    "engine, float32": ("float32", {"precision": "exact", **ENGINE}),
    "engine, float16, exact": ("float16", {"precision": "exact", **ENGINE}),
}
# Whose memory is measured.
KEPT = ("network", "float32", "float16, exact", "float16, half", "float16, half, not widened")


def written(name: str, folder: str) -> Row:
    """All files; what is said of their input."""
    import onnx.shape_inference
    import onnx2coreml

    import mlferry

    source = onnx.shape_inference.infer_shapes(NETWORKS[name](1))
    Path(folder, "model.onnx").write_bytes(source.SerializeToString())
    model = mlferry.convert(f"{folder}/model.onnx")
    model.save(f"{folder}/model.mlmodel")
    for precision in ("fp32", "fp16"):
        onnx2coreml.convert(f"{folder}/model.onnx", compute_precision=precision).save(
            f"{folder}/{precision}.mlpackage"
        )
    (feature,) = model.get_spec().description.input
    shape = tuple(feature.type.multiArrayType.shape)
    np.save(f"{folder}/input.npy", np.random.default_rng(0).normal(0, 1, shape).astype("f4"))
    return {}


def _opened(way: str, folder: str, **more: bool) -> Callable[[], np.ndarray]:
    import mlferry

    file, options = WAYS[way]
    model = mlferry.MLModel(f"{folder}/{FILES[file]}", threads=1, **options, **more)
    (feature,) = model.get_spec().description.input
    given = {feature.name: np.load(f"{folder}/input.npy")}

    def run() -> np.ndarray:
        (made,) = model.predict(given).values()
        return np.asarray(made)

    return run


def _source(folder: str) -> Callable[[], np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    given = {session.get_inputs()[0].name: np.load(f"{folder}/input.npy")}

    def run() -> np.ndarray:
        (made,) = session.run(None, given)
        return np.asarray(made)

    return run


def latency(folder: str, runs: int) -> Row:
    """Milliseconds of each way, and the ratios to what they are held against."""
    ways = {"source": _source(folder), **{way: _opened(way, folder) for way in WAYS}}
    made = {way: run() for way, run in ways.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(runs):
        for way, run in ways.items():
            start = time.perf_counter()
            run()
            times[way].append(time.perf_counter() - start)
    found: Row = {"ms": {way: 1e3 * statistics.median(taken) for way, taken in times.items()}}
    found["ratio"] = {
        way: statistics.median(
            mine / other
            for mine, other in zip(
                times[way], times["source" if way.startswith("engine") else "network"], strict=True
            )
        )
        for way in WAYS
    }
    span = float(np.ptp(made["source"]))
    found["difference"] = float(
        max(np.abs(made[way] - made["source"]).max() for way in ("float32", "engine, float32"))
        / span
    )
    return found


def memory(way: str, folder: str) -> Row:
    """Bytes at the peak, without Numba, and of the weights."""
    import mlferry.numerics.half
    import mlferry.runtime.program_session
    import mlferry.runtime.session  # noqa: F401

    file = Path(folder, FILES[WAYS[way][0]])
    weights = file if file.is_file() else next(file.rglob("weight.bin"))

    def work() -> np.ndarray:
        return _opened(way, folder, compiled=False)()

    return {**measured(work), "weights": weights.stat().st_size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the tables of docs/speed.md")
    arguments = parser.parse_args()
    if arguments.task:
        kind, *rest = arguments.task
        task: Callable[..., Row] = {"written": written, "memory": memory}[kind]
        print(json.dumps(task(*rest)))
        return

    rows: list[Row] = []
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            apart(__file__, "written", name, folder)
            row = {"network": name, **latency(folder, arguments.runs)}
            row["memory"] = {way: apart(__file__, "memory", way, folder) for way in KEPT}
        rows.append(row)
        print(name)
        for way, ratio in row["ratio"].items():
            print(f"  {way:<28}{row['ms'][way]:>8.1f} ms{ratio:>7.2f}")
        print(
            f"  {'source':<28}{row['ms']['source']:>8.1f} ms   difference {row['difference']:.0e}"
        )
        for way, found in row["memory"].items():
            megabytes, part = found["bytes"] / 1e6, found["bytes"] / found["weights"]
            print(f"  memory, {way:<20}{megabytes:>6.0f} MB{part:>7.2f}", flush=True)
    if arguments.docs:
        _write(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _write(rows: list[Row]) -> None:
    from benchmarks.pages import write_table

    def ratios(row: Row, *ways: str) -> list[str]:
        return [f"{row['ratio'][way]:.2f}" for way in ways]

    numpy = ("float32", "float16, exact", "float16, half", "float16, half, not widened")
    write_table(
        "programs",
        ("Network", "As a network", *numpy),
        [[row["network"], f"{row['ms']['network']:.1f} ms", *ratios(row, *numpy)] for row in rows],
    )
    write_table(
        "programs by onnxruntime",
        ("Network", "onnxruntime, ONNX", "Network", "float32", "float16, exact", "Difference"),
        [
            [
                row["network"], f"{row['ms']['source']:.1f} ms",
                *ratios(row, *(way for way in WAYS if way.startswith("engine"))),
                f"{row['difference']:.0e}",
            ]
            for row in rows
        ],
    )  # fmt: skip
    write_table(
        "program memory",
        ("Network", "Weights, float16", *KEPT),
        [
            [
                row["network"], f"{row['memory']['float16, half']['weights'] / 1e6:.0f} MB",
                *(f"{found['bytes'] / 1e6:.0f} MB, {found['bytes'] / found['weights']:.1f}"
                  for found in row["memory"].values()),
            ]
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
