"""Latency of exported ONNX models and of `engine="onnxruntime"`, beside the source model.

    python benchmarks/exporting.py [--runs 25] [--threads 1] [--json FILE] [--docs]

Every network goes from ONNX to Core ML and back. Source and result are run by onnxruntime, by
turns in one process, on the same inputs; the medians of the ratios of neighbouring runs are shown,
for three ways: the exported model, `MLModel.predict` with the engine, and the same with one
activation in the middle as a custom layer in Python, whose own time is set aside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
HEADER = f"{'network':<22}{'source':>11}{'exported':>10}{'engine':>8}{'split':>8}{'difference':>12}"
ACTIVATIONS = ("Relu", "Clip", "Tanh", "Softmax")


def measured(theirs: Callable[[], Any], ours: Callable[[], float], runs: int) -> Row:
    """Ratios of neighbouring runs; `ours` returns the seconds that are set aside."""
    for _ in range(3):
        theirs()
        ours()
    pairs = []
    for index in range(runs):
        start = time.perf_counter()
        aside = ours() if index % 2 else 0.0
        if index % 2:
            mine = time.perf_counter() - start - aside
            start = time.perf_counter()
        theirs()
        other = time.perf_counter() - start
        if not index % 2:
            start = time.perf_counter()
            aside = ours()
            mine = time.perf_counter() - start - aside
        pairs.append((mine, other))
    return {
        "ratio": statistics.median(mine / other for mine, other in pairs),
        "peer_ms": 1e3 * statistics.median(other for _, other in pairs),
    }


def split_model(source: bytes, name: str, threads: int, spent: list[float]) -> Any:
    """The model with one activation in its middle as a custom layer, which notes its own time."""
    import onnx

    import mlferry

    graph = onnx.load_from_string(source).graph
    nodes = [node for node in graph.node if node.op_type in ACTIVATIONS]
    chosen = nodes[len(nodes) // 2]
    constants = {t.name: float(onnx.numpy_helper.to_array(t)) for t in graph.initializer
                 if not t.dims}  # fmt: skip
    low, high = ([*(constants[n] for n in chosen.input[1:]), 0.0, 0.0])[:2]

    def evaluate(x: np.ndarray) -> np.ndarray:
        if chosen.op_type == "Relu":
            return np.maximum(x, 0)
        if chosen.op_type == "Clip":
            return np.clip(x, low, high)
        if chosen.op_type == "Tanh":
            return np.tanh(x)
        shifted = np.exp(x - x.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)

    class Activation(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            start = time.perf_counter()
            made = [evaluate(inputs[0])]
            spent.append(time.perf_counter() - start)
            return made

    def entry(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Activation", output_shapes=lambda shapes: shapes[:1])

    converted = mlferry.convert(
        source, custom_conversion_functions={chosen.name or chosen.output[0]: entry}
    )
    return mlferry.MLModel(
        converted.get_spec(), custom_layers={"Activation": Activation}, engine="onnxruntime",
        threads=threads,
    )  # fmt: skip


def network(name: str, runs: int, threads: int) -> Row:
    import onnxruntime as ort

    import mlferry
    from benchmarks.networks import NETWORKS

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads

    def session(data: bytes) -> Any:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    source = NETWORKS[name](1).SerializeToString()
    model = mlferry.convert(source)
    theirs, exported = session(source), session(mlferry.export_onnx(model).SerializeToString())
    engine = mlferry.MLModel(model.get_spec(), engine="onnxruntime", threads=threads)
    spent: list[float] = []
    split = split_model(source, name, threads, spent)
    rng = np.random.default_rng(1)
    given = {
        i.name: rng.integers(0, 2000, i.shape) if "int" in i.type
        else rng.normal(0, 1, i.shape).astype(np.float32)
        for i in theirs.get_inputs()
    }  # fmt: skip
    kinds = {"tensor(int32)": np.int32, "tensor(float)": np.float32}
    own = {i.name: given[i.name].astype(kinds[i.type]) for i in exported.get_inputs()}
    (wanted,) = theirs.run(None, given)
    results = [
        exported.run(None, own)[0],
        *(next(iter(m.predict(own).values())) for m in (engine, split)),
    ]
    worst = max(float(np.abs(made - wanted).max() / np.ptp(wanted)) for made in results)

    def run_exported() -> float:
        exported.run(None, own)
        return 0.0

    def run_engine() -> float:
        engine.predict(own)
        return 0.0

    def run_split() -> float:
        spent.clear()
        split.predict(own)
        return sum(spent)

    row: Row = {"network": name, "difference": worst, "onnxruntime": ort.__version__}
    for key, run in (("exported", run_exported), ("engine", run_engine), ("split", run_split)):
        found = measured(lambda: theirs.run(None, given), run, runs)
        row[key], row["source_ms"] = found["ratio"], found["peer_ms"]
    return row


def shown(row: Row) -> str:
    return (
        f"{row['network']:<22}{row['source_ms']:>8.2f} ms{row['exported']:>10.2f}"
        f"{row['engine']:>8.2f}{row['split']:>8.2f}{row['difference']:>12.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/exporting.md")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from benchmarks.networks import NETWORKS
    from benchmarks.pages import DOCS, write_table

    print(HEADER, flush=True)
    rows = []
    for name in arguments.networks or NETWORKS:
        rows.append(network(name, arguments.runs, arguments.threads))
        print(shown(rows[-1]), flush=True)
    if arguments.docs:
        write_table(
            "exporting",
            ("Network", "Source", "Exported", "Engine", "With a custom layer", "Difference"),
            [
                (
                    r["network"], f"{r['source_ms']:.1f} ms", f"{r['exported']:.2f}",
                    f"{r['engine']:.2f}", f"{r['split']:.2f}", f"{r['difference']:.0e}",
                )
                for r in rows
            ],
            DOCS / "exporting.md",
        )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
