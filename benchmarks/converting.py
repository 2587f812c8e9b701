"""Converting ResNet-50, beside coremltools and onnx2coreml.

    python benchmarks/converting.py [--programs] [--runs 3] [--json FILE] [--docs]

onnx2coreml, which builds on coremltools, reads ONNX. coremltools itself reads neither `.h5` nor
ONNX today: it gets the same Keras model in memory, by way of TensorFlow, and makes a model of the
same kind (`neuralnetwork`). Every run is a process of its own, which first converts a model of one
layer: times leave out imports, late ones too, building and saving the source. The ratio is of
medians of runs by turns. Peak memory is what converting adds to the process, as a multiple of the
weights.

With --programs all make an ML Program of float16, and seconds and memory include writing the
package: coremltools writes it while it converts. onnx2coreml needs iOS 17 there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.processes import apart, measured  # noqa: E402 - behind the path of the project

T = TypeVar("T")


def after_a_small_one(
    work: Callable[[T], object], path: str, read: Callable[[str], T]
) -> dict[str, float]:
    """Measured after the model of one layer that lies beside the source; both are read before."""
    source = Path(path)
    small = read(str(source.with_name(f"small{source.suffix}")))
    large = read(path)
    work(small)
    return measured(lambda: work(large))


def ours(path: str) -> dict[str, float]:
    """`.h5` or `.onnx`."""
    import mlferry

    return after_a_small_one(mlferry.convert, path, str)


def keras_model(path: str) -> Any:
    import keras

    return keras.models.load_model(path, compile=False)


def by_coremltools(model: Any, **options: Any) -> Any:
    import coremltools

    shape = coremltools.TensorType(shape=(1, *model.input_shape[1:]))
    return coremltools.convert(model, source="tensorflow", inputs=[shape], **options)


def theirs(path: str) -> dict[str, float]:
    def work(model: Any) -> object:
        return by_coremltools(model, convert_to="neuralnetwork")

    return after_a_small_one(work, path, keras_model)


def from_onnx(path: str) -> dict[str, float]:
    import onnx2coreml

    def work(source: str) -> object:
        return onnx2coreml.convert(source, format="mlmodel")

    return after_a_small_one(work, path, str)


def program_from_onnx(path: str) -> dict[str, float]:
    import onnx2coreml

    def work(source: str) -> None:
        onnx2coreml.convert(source).save(f"{source}.onnx2coreml.mlpackage")

    return after_a_small_one(work, path, str)


def our_program(path: str) -> dict[str, float]:
    """`.h5` or `.onnx` to an `.mlpackage`."""
    import mlferry

    def work(source: str) -> None:
        mlferry.convert(source, convert_to="mlprogram").save(f"{source}.ours.mlpackage")

    return after_a_small_one(work, path, str)


def their_program(path: str) -> dict[str, float]:
    """The same Keras model by way of TensorFlow, for the same systems."""
    import coremltools

    options = {
        "convert_to": "mlprogram",
        "minimum_deployment_target": coremltools.target.iOS15,
        "skip_model_load": True,
    }

    def work(model: Any) -> None:
        by_coremltools(model, **options).save(f"{path}.theirs.mlpackage")

    return after_a_small_one(work, path, keras_model)


def sources(folder: str) -> dict[str, float]:
    """The files of ResNet-50 and of a model of one layer; the number of bytes of the weights."""
    import keras
    import onnx
    import onnx.parser
    import onnx.shape_inference

    from benchmarks.networks import NETWORKS

    pictures = keras.Input((8, 8, 3))
    small = keras.Model(pictures, keras.layers.Conv2D(2, 3)(pictures))
    small.save(f"{folder}/small.h5")
    model = keras.applications.ResNet50(weights=None)
    model.save(f"{folder}/resnet50.h5")
    network = onnx.shape_inference.infer_shapes(NETWORKS["ResNet-50"](1))
    Path(f"{folder}/resnet50.onnx").write_bytes(network.SerializeToString())
    one = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3] x) => (float[1, 3] y) '
        "{ y = Relu(x) }"
    )
    Path(f"{folder}/small.onnx").write_bytes(one.SerializeToString())
    return {"bytes": 4.0 * model.count_params()}


TASKS = {
    "ours": ours,
    "theirs": theirs,
    "from_onnx": from_onnx,
    "sources": sources,
    "our_program": our_program,
    "their_program": their_program,
    "program_from_onnx": program_from_onnx,
}
NETWORKS_BY = ("ours", "theirs", "from_onnx")
PROGRAMS_BY = ("our_program", "their_program", "program_from_onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", action="store_true", help="ML Programs, with saving")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", action="store_true", help="write the table of docs/speed.md")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task, argument = arguments.task
        print(json.dumps(TASKS[task](argument)))
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = apart(__file__, "sources", folder)["bytes"]
        mine, peer, other = PROGRAMS_BY if arguments.programs else NETWORKS_BY
        jobs = {
            "mlferry, .h5": (mine, f"{folder}/resnet50.h5"),
            "mlferry, .onnx": (mine, f"{folder}/resnet50.onnx"),
            "coremltools, TensorFlow": (peer, f"{folder}/resnet50.h5"),
            "onnx2coreml, .onnx": (other, f"{folder}/resnet50.onnx"),
        }
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        for _ in range(arguments.runs):
            for name, job in jobs.items():
                runs[name].append(apart(__file__, *job))
    rows = {
        name: {key: statistics.median(run[key] for run in found) for key in ("seconds", "bytes")}
        for name, found in runs.items()
    }
    base = rows["coremltools, TensorFlow"]["seconds"]
    print(f"{'ResNet-50':<26}{'seconds':>9}{'faster':>8}{'memory':>10}{'of weights':>12}")
    for name, row in rows.items():
        print(
            f"{name:<26}{row['seconds']:>9.2f}{base / row['seconds']:>7.1f}x"
            f"{row['bytes'] / 1e6:>7.0f} MB{row['bytes'] / weights:>11.1f}x"
        )
    if arguments.docs:
        from benchmarks.pages import write_table

        write_table(
            "converting to programs" if arguments.programs else "converting",
            ("ResNet-50", "Seconds", "Faster", "Memory", "Of the weights"),
            [
                (
                    name, f"{row['seconds']:.2f}", f"{base / row['seconds']:.1f}",
                    f"{row['bytes'] / 1e6:.0f} MB", f"{row['bytes'] / weights:.1f}",
                )
                for name, row in rows.items()
            ],
        )  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
