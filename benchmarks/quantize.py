"""Quantizing a model of the size of ResNet-50 (25.5 M weights), beside coremltools.

    python benchmarks/quantize.py [--runs 3] [--every-layer] [--skip-slow]

Both tools get the same model in one process, by turns, on one thread; medians are shown.
coremltools' k-means fails inside its `quantize_weights`, so its k-means function is timed on one
layer of 2.36 M weights; ``--every-layer`` compares the squared errors of all layers (minutes).
Its linear quantization below 8 bits takes a minute a run: one run only, none with
``--skip-slow``. Peak memory is that of a process of its own, without what the imports take.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.layers.builder import Builder
from mlferry.models.quantization import quantize_weights
from mlferry.models.quantization.kmeans import kmeans, nearest

LARGE = (512, 512, 3, 3)
STAGES = ((64, 256, 3), (128, 512, 4), (256, 1024, 6), (512, 2048, 3))


def shapes() -> Iterator[tuple[int, int, int]]:
    """Outputs, inputs and kernel size of ResNet-50's convolutions, and its last layer."""
    yield 64, 3, 7
    before = 64
    for narrow, wide, blocks in STAGES:
        for block in range(blocks):
            yield narrow, before, 1
            yield narrow, narrow, 3
            yield wide, narrow, 1
            if block == 0:
                yield wide, before, 1
            before = wide
    yield 1000, 2048, 1


def model() -> mlferry.MLModel:
    """A model with layers of these shapes, each on its own input; weights as trained ones are:
    heavier tails than a normal distribution's, another width for every output.
    """
    rng = np.random.default_rng(0)
    builder = Builder()
    for index, (outputs, inputs, size) in enumerate(shapes()):
        name = f"x{index}"
        builder.input(name, (1, inputs, 8, 8))
        widths = np.exp(rng.normal(0, 0.3, (outputs, 1, 1, 1))) / np.sqrt(inputs * size * size)
        values = rng.standard_t(6, (outputs, inputs, size, size)) * widths
        builder.layer(
            "convolution", f"layer{index}", [name], [f"y{index}"], outputChannels=outputs,
            kernelChannels=inputs, kernelSize=[size, size], same={},
            weights=values.astype(np.float32),
        )  # fmt: skip
        builder.output(f"y{index}")
    return mlferry.MLModel(builder.model())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        made = function()
        return time.perf_counter() - start, made


def by_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any] | None, runs: int, theirs_runs: int
) -> tuple[float, float | None]:
    """Median seconds of both, run by turns."""
    spent: tuple[list[float], list[float]] = ([], [])
    for run in range(runs):
        spent[0].append(timed(ours)[0])
        if theirs is not None and run < theirs_runs:
            spent[1].append(timed(theirs)[0])
    return statistics.median(spent[0]), statistics.median(spent[1]) if spent[1] else None


def show(what: str, ours: float, theirs: float | None) -> None:
    other = "-" if theirs is None else f"{theirs:9.2f} s   {theirs / ours:6.1f} x"
    print(f"{what:<34} {ours:8.2f} s   {other}", flush=True)


def error(values: np.ndarray, table: np.ndarray, indices: np.ndarray) -> float:
    flat = values.astype(np.float64).ravel()
    return float(np.square(flat - np.asarray(table, np.float64).ravel()[indices.ravel()]).sum())


def peak(path: Path, bits: int, mode: str) -> float:
    """The most memory that quantizing a file takes, as a multiple of the file's size."""
    made = subprocess.run(
        [sys.executable, __file__, "--child", str(path), str(bits), mode],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(made.stdout)


def highest() -> int:
    """The most memory that this process held so far, in bytes; Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def child(path: str, bits: str, mode: str) -> None:
    before = highest()
    quantize_weights(mlferry.MLModel(path), int(bits), mode)
    print((highest() - before) / Path(path).stat().st_size)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--every-layer", action="store_true")
    parser.add_argument("--skip-slow", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import coremltools
        from coremltools.models.neural_network import quantization_utils as theirs
    ours = model()
    runs = arguments.runs
    with tempfile.TemporaryDirectory() as folder:
        path = ours.save(Path(folder) / "large.mlmodel")
        other = coremltools.models.MLModel(str(path), skip_model_load=True)
        print(f"{'':<34} {'mlferry':>10}   {'coremltools ' + coremltools.__version__}")
        for bits in (8, 6, 4, 2, 1, 16):
            slow = bits < 8
            seconds = by_turns(
                lambda b=bits: quantize_weights(ours, b),
                None if slow and arguments.skip_slow
                else lambda b=bits: theirs.quantize_weights(other, b, "linear"),
                runs, 1 if slow else runs,
            )  # fmt: skip
            show(f"linear, {bits} bits", *seconds)
        for bits in (8, 4):
            show(f"kmeans, {bits} bits, the whole model",
                 by_turns(lambda b=bits: quantize_weights(ours, b, "kmeans"), None, runs, 0)[0],
                 None)  # fmt: skip
        for bits, mode in ((8, "linear"), (4, "linear"), (8, "kmeans")):
            print(f"peak memory, {mode}, {bits} bits: {peak(path, bits, mode):.2f} x the model")
    compare_kmeans(theirs, runs, arguments.every_layer)


def compare_kmeans(theirs: Any, runs: int, every_layer: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(LARGE).astype(np.float32)

    def mine(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = kmeans(array, 256)
        return table, nearest(array, table)

    seconds = statistics.median(timed(lambda: mine(values))[0] for _ in range(runs))
    other, (lut, indices) = timed(lambda: theirs._get_kmeans_lookup_table_and_weight(8, values))
    show("kmeans, 8 bits, 2.36 M weights", seconds, other)
    scale = values.size * values.var()
    print(f"  squared error / variance: {error(values, *mine(values)) / scale:.4e}, "
          f"coremltools {error(values, lut, indices) / scale:.4e}")  # fmt: skip
    if not every_layer:
        return
    worse = []
    for index, (outputs, inputs, size) in enumerate(shapes()):
        values = rng.standard_t(6, (outputs, inputs, size, size)).astype(np.float32)
        lut, indices = theirs._get_kmeans_lookup_table_and_weight(8, values)
        ratio = error(values, *mine(values)) / error(values, lut, indices)
        print(f"  layer {index}: {values.size:,} weights, {ratio:.4f} of coremltools' error")
        if ratio > 1:
            worse.append(index)
    print(f"layers with a larger error than coremltools: {worse or 'none'}")


if __name__ == "__main__":
    main()
