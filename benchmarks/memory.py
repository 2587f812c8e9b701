"""Loading a model and its first prediction, beside onnxruntime: seconds and memory.

    python benchmarks/memory.py [--json FILE] [--docs]

Every run is a process of its own, with one thread; imports are left out. Memory is what the
process holds at its peak beyond what it held before: the model, the plan with its weights, and
the blobs. On NumPy alone it is held against three times the weights and twice the largest blob;
with compiled kernels, Numba is included, which is imported for the first prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.networks import NETWORKS
from benchmarks.processes import apart, measured

Row = dict[str, Any]
NAMES = ("SqueezeNet 1.1", "ResNet-50", "MobileNetV2", "style", "U-Net")


def source(name: str, folder: str) -> Row:
    """Write both files; bytes of the weights and of the largest blob."""
    import mlferry

    model = NETWORKS[name](1)
    Path(folder, "model.onnx").write_bytes(model.SerializeToString())
    converted = mlferry.convert(f"{folder}/model.onnx")
    path = converted.save(f"{folder}/model.mlmodel")
    (feature,) = converted.get_spec().description.input
    shape = tuple(feature.type.multiArrayType.shape)
    np.save(f"{folder}/input.npy", np.random.default_rng(0).normal(0, 1, shape).astype("f4"))
    blobs = mlferry.shapes(converted, {feature.name: np.load(f"{folder}/input.npy")})
    largest = max(int(np.prod(shape)) for shape in blobs.values())
    return {"weights": path.stat().st_size, "largest": 4 * largest, "input": feature.name}


def _ours(name: str, folder: str, **options: bool) -> Row:
    from mlferry.runtime.session import Session
    from mlferry.spec.io import load_spec

    x = np.load(f"{folder}/input.npy")
    found: Row = {}

    def work() -> Any:
        spec = load_spec(f"{folder}/model.mlmodel")
        session = Session(spec.neuralNetwork, threads=1, **options)
        output = spec.description.output[0].name
        found["first"] = measured(lambda: session.run({name: x}, [output]))["seconds"]
        session.run({name: x}, [output])
        return spec, session

    return {**measured(work), **found}


def ours(name: str, folder: str) -> Row:
    return _ours(name, folder, compiled=False)


def plain(name: str, folder: str) -> Row:
    return _ours(name, folder, compiled=False, winograd=False)


def compiled(name: str, folder: str) -> Row:
    return _ours(name, folder, compiled=True)


def theirs(name: str, folder: str) -> Row:
    import onnxruntime

    x = np.load(f"{folder}/input.npy")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def work() -> Any:
        session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options)
        session.run(None, {name: x})
        session.run(None, {name: x})
        return session

    return measured(work)


TASKS: dict[str, Callable[[str, str], Row]] = {
    "source": source, "ours": ours, "plain": plain, "compiled": compiled, "theirs": theirs,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    parser.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task, *rest = arguments.task
        print(json.dumps(TASKS[task](*rest)))
        return
    rows = []
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            sizes = apart(__file__, "source", name, folder)
            runs = {t: apart(__file__, t, sizes["input"], folder) for t in list(TASKS)[1:]}
        bound = 3 * sizes["weights"] + 2 * sizes["largest"]
        rows.append((
            name, f"{sizes['weights'] / 1e6:.0f} MB", f"{sizes['largest'] / 1e6:.1f} MB",
            f"{runs['ours']['first']:.2f} s", f"{runs['ours']['bytes'] / 1e6:.0f} MB",
            f"{runs['ours']['bytes'] / bound:.2f}", f"{runs['plain']['bytes'] / 1e6:.0f} MB",
            f"{runs['compiled']['first']:.2f} s", f"{runs['compiled']['bytes'] / 1e6:.0f} MB",
            f"{runs['theirs']['bytes'] / 1e6:.0f} MB",
        ))  # fmt: skip
        print("  ".join(rows[-1]), flush=True)
    header = (
        "Network", "Weights", "Largest blob", "First prediction", "Memory", "Of the bound",
        "Without tiles", "First, compiled", "Memory, compiled", "onnxruntime",
    )  # fmt: skip
    if arguments.docs:
        from benchmarks.pages import write_table

        write_table("memory", header, rows)
    if arguments.json:
        found = [dict(zip(header, row, strict=True)) for row in rows]
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
