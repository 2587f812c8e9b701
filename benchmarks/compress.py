"""Compressing an ML Program of the size of ResNet-50 (25.5 M weights), beside coremltools.

    python benchmarks/compress.py [--runs 3] [--only NAME]... [--json FILE] [--docs]

Both tools get the same package of float32 in one process, by turns, on one thread, with the names
of `coremltools.optimize.coreml`; medians of processor seconds are shown, of one run of coremltools
where it takes longer than 30. Errors are the root of the mean squared difference of a weight,
divided by that of the weight itself: the largest one of all layers, and the largest ratio of those
of one layer.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.pages import write_table  # noqa: E402 - behind the path of the project
from benchmarks.quantize import model  # noqa: E402 - likewise
from mlferry.exporters.program import ProgramOptions, to_program  # noqa: E402 - likewise
from mlferry.models.model import MLModel  # noqa: E402 - likewise
from mlferry.optimize import coreml as ours  # noqa: E402 - likewise

_LONG = 30.0  # processor seconds
# What is done, with the configuration that both get.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "k-means, 4 bits": ("palettize_weights", "OpPalettizerConfig", {"nbits": 4}),
    "k-means, 4 bits, groups of 16": (
        "palettize_weights", "OpPalettizerConfig",
        {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16}),
    "linear, 8 bits": ("linear_quantize_weights", "OpLinearQuantizerConfig", {}),
    "linear, 4 bits, blocks of 32": (
        "linear_quantize_weights", "OpLinearQuantizerConfig",
        {"dtype": "int4", "granularity": "per_block", "block_size": 32}),
    "half of the weights pruned": (
        "prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5}),
}  # fmt: skip


def weights_of(compressed: MLModel) -> dict[str, np.ndarray]:
    found = ours.get_weights_metadata(compressed)
    return {weight.child_ops[0].name: weight.val for weight in found.values()}


def errors(before: dict[str, np.ndarray], after: MLModel) -> np.ndarray:
    """Of each weight, in the same order."""
    decoded = weights_of(after)
    found = []
    for name, values in before.items():
        off = np.square(decoded[name].astype(np.float64) - values).mean()
        found.append(np.sqrt(off / np.square(values.astype(np.float64)).mean()))
    return np.array(found)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, which others on the machine change little, and the result."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.process_time()
        made = function()
        return time.process_time() - start, made


def measure(name: str, whole: MLModel, other: Any, theirs: Any, runs: int) -> dict[str, Any]:
    function, kind, options = CASES[name]
    config = {"config_type": kind, "global_config": options}
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        seconds, mine = timed(
            lambda: getattr(ours, function)(
                whole, ours.OptimizationConfig.from_dict(json.loads(json.dumps(config)))
            )
        )
        spent[0].append(seconds)
        if not spent[1] or spent[1][0] < _LONG:
            given = theirs.OptimizationConfig.from_dict(json.loads(json.dumps(config)))
            seconds, made = timed(lambda given=given: getattr(theirs, function)(other, given))
            spent[1].append(seconds)
    with tempfile.TemporaryDirectory() as folder:
        made.save(str(Path(folder) / "theirs.mlpackage"))
        before = weights_of(whole)
        one = errors(before, mine)
        two = errors(before, MLModel(Path(folder) / "theirs.mlpackage"))
    return {
        "name": name,
        "seconds": statistics.median(spent[0]),
        "coremltools seconds": statistics.median(spent[1]),
        "largest error": float(one.max()),
        "coremltools largest error": float(two.max()),
        "worst ratio": float(np.divide(one, two, out=np.ones_like(one), where=two > 0).max()),
    }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    one, two = row["seconds"], row["coremltools seconds"]
    return (
        row["name"],
        f"{one:.2f} s",
        f"{two:.2f} s",
        f"{two / one:.1f}",
        f"{row['largest error']:.3%}",
        f"{row['coremltools largest error']:.3%}",
        f"{row['worst ratio']:.4f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", action="append", choices=[*CASES])
    parser.add_argument("--json", type=Path, help="write the numbers")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import coremltools
    network = model()
    spec, weights = to_program(network.spec, ProgramOptions(half=False, at_least=8))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = network.with_spec(spec, weights=weights).save(Path(folder) / "large.mlpackage")
        whole = MLModel(path)
        other = coremltools.models.MLModel(str(path), skip_model_load=True)
        for name in arguments.only or CASES:
            rows.append(measure(name, whole, other, coremltools.optimize.coreml, arguments.runs))
            print(json.dumps(rows[-1]), flush=True)
    for row in rows:
        print("  ".join(cells(row)))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if arguments.docs:
        version = f"coremltools {coremltools.__version__}"
        write_table(
            "compressing",
            ("", "mlferry", version, "Faster", "Largest error", version, "Worst layer"),
            map(cells, rows),
        )


if __name__ == "__main__":
    main()
