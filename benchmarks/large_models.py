"""Models of gigabytes: how much memory it takes to convert, save, quantize and run them.

    python benchmarks/large_models.py [--megabytes 1024] [--width 4096] [--docs]

The source is an ONNX model with external data: matrix products with weights of their own, float32.
It is written anew each time into a temporary folder, which takes four times its size at most. Every
step is a process of its own, which first does the same with a model of two small layers, so that
imports are left out. Two peaks are given as multiples of the source's weights, both beyond what the
process held before: of the memory that is the process's own (RssAnon of Linux), and of all that is
resident, with the pages of files that are mapped, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.processes import apart

Row = dict[str, float]
SMALL, LARGE = "small", "large"


def write_source(folder: Path, megabytes: float, width: int) -> int:
    """`model.onnx` with `weights.data`; the number of bytes of its weights."""
    from onnx import TensorProto, helper

    folder.mkdir()
    rng = np.random.default_rng(0)
    size = 4 * width * width
    count = max(2, round(megabytes * 2**20 / size))
    nodes, tensors, last = [], [], "x"
    with (folder / "weights.data").open("wb") as stream:
        for index in range(count):
            weight = rng.standard_normal((width, width), np.float32)
            weight *= np.float32((2 / width) ** 0.5)  # so that what passes it keeps its size
            stream.write(weight.data)
            tensor = TensorProto(name=f"w{index}", data_type=1, dims=weight.shape)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": "weights.data", "offset": index * size, "length": size}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            product, output = f"product{index}", f"h{index}" if index < count - 1 else "y"
            nodes.append(helper.make_node("MatMul", [last, tensor.name], [product]))
            nodes.append(helper.make_node("Relu", [product], [output]))
            last = output
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, width]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return count * size


def _memory() -> tuple[int, int]:
    """Bytes of memory that are this process's own now, and those with the pages of files."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "RssAnon" not in fields:
        raise SystemExit("the system does not tell RssAnon: Linux is needed")
    own, resident = (1024 * int(fields[name].split()[0]) for name in ("RssAnon", "VmRSS"))
    return own, resident


def measured(work: Callable[[Path], object], folder: Path) -> Row:
    """Seconds, and both peaks in bytes, after the same with the small model."""
    work(folder / SMALL)
    before = most = _memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            own, resident = _memory()
            most = max(most[0], own), max(most[1], resident)

    watching = threading.Thread(target=watch)
    watching.start()
    start = time.perf_counter()
    try:
        work(folder / LARGE)
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watching.join()
    own, resident = (after - first for after, first in zip(most, before, strict=True))
    return {"seconds": seconds, "own": own, "resident": resident}


# ---- the steps ---------------------------------------------------------------------------------


def network(folder: Path) -> None:
    import mlferry

    mlferry.convert(folder / "model.onnx").save(folder / "model.mlmodel")


def _program(folder: Path, precision: str) -> None:
    import mlferry

    made = mlferry.convert(
        folder / "model.onnx", convert_to="mlprogram", compute_precision=precision
    )
    made.save(folder / f"{precision}.mlpackage")


def half_program(folder: Path) -> None:
    _program(folder, "float16")


def full_program(folder: Path) -> None:
    _program(folder, "float32")


def quantized(folder: Path) -> None:
    import mlferry

    model = mlferry.MLModel(folder / "float16.mlpackage")
    mlferry.quantize_weights(model, 8).save(folder / "8.mlpackage")


def _sample(model: Any) -> dict[str, Any]:
    (feature,) = model.spec.description.input
    return {"x": np.ones(tuple(feature.type.multiArrayType.shape), np.float32)}


def predicted(folder: Path) -> None:
    import mlferry

    model = mlferry.MLModel(folder / "float16.mlpackage")
    model.predict(_sample(model))


def compared(folder: Path) -> None:
    import mlferry

    models = [mlferry.MLModel(folder / f"{name}.mlpackage") for name in ("float16", "8")]
    mlferry.compare_models(*models, [_sample(models[0])] * 2)


STEPS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "network": ("converted to a network, and saved", network),
    "full_program": ("to a program of float32", full_program),
    "half_program": ("to a program of float16", half_program),
    "quantized": ("that quantized to 8 bits, and saved", quantized),
    "predicted": ("the program of float16 loaded, and run once", predicted),
    "compared": ("both programs compared on two samples", compared),
}
PROTOBUF_MOST = 2**31 - 1


def step(name: str, folder: str, in_memory: str = "") -> Row:
    """One step. `in_memory` are the megabytes that are kept before a scratch file is made."""
    if in_memory:
        from mlferry.spec import mapped

        mapped.IN_MEMORY = int(in_memory) << 20
    return measured(STEPS[name][1], Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(step(*arguments.task)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_source(folder / SMALL, 0.1, 64)
        weights = write_source(folder / LARGE, arguments.megabytes, arguments.width)
        print(f"weights of {weights / 1e9:.2f} GB")
        for task, (what, _) in STEPS.items():
            if task == "network" and weights > PROTOBUF_MOST:
                continue
            found = apart(__file__, task, name)
            rows.append((
                what, f"{found['seconds']:.1f} s", f"{found['own'] / weights:.2f}",
                f"{found['resident'] / weights:.2f}",
            ))  # fmt: skip
            print("  ".join(rows[-1]), flush=True)
            for made in ("model.mlmodel", "float32.mlpackage"):
                _remove(folder / LARGE / made)
    if arguments.docs:
        from benchmarks.pages import write_table

        header = (f"{weights / 1e9:.1f} GB of weights", "Own memory", "With pages of files")
        write_table("large models", header, [(what, *peaks) for what, _, *peaks in rows])


def _remove(path: Path) -> None:
    import shutil

    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
