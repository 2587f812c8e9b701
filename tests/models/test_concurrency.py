"""One model in many threads and processes; work that is interrupted."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.layers.builder import Builder
from mlferry.spec.proto import model_pb2
from tests.layers import broken_models

ROOT = Path(__file__).parents[2]


class Doubled(mlferry.CustomLayer):
    """Twice its input."""

    def output_shapes(self, input_shapes: Any) -> Any:
        return input_shapes

    def evaluate(self, inputs: Any) -> Any:
        return [2 * inputs[0]]


def convolutional() -> model_pb2.Model:
    rng = np.random.default_rng(0)
    builder = Builder()
    builder.input("x", (1, 3, 12, 12))
    before = "x"
    for index, (inputs, result) in enumerate(((3, 8), (8, 8), (8, 4))):
        builder.layer(
            "convolution", f"c{index}", [before], [f"b{index}"], outputChannels=result,
            kernelChannels=inputs, kernelSize=[3, 3], same={},
            weights=rng.standard_normal(result * inputs * 9).astype(np.float32) / 5,
        )  # fmt: skip
        builder.layer("activation", f"r{index}", [f"b{index}"], [f"a{index}"], ReLU={})
        before = f"a{index}"
    builder.output(before)
    return builder.model()


def looping() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 3, 12, 12))
    builder.layer("copy", "start", ["x"], ["v"])
    with builder.inside() as body:
        builder.layer("activation", "half", ["v"], ["h"], linear={"alpha": 0.5, "beta": 1.0})
        builder.layer("copy", "again", ["h"], ["v"])
    builder.layer("loop", "loop", [], [], maxLoopIterations=9, bodyNetwork=body)
    builder.layer("activation", "end", ["v"], ["y"], tanh={})
    builder.output("y")
    return builder.model()


def custom() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 3, 12, 12))
    builder.layer("custom", "twice", ["x"], ["y"], output_shapes=[(1, 3, 12, 12)],
                  className="Doubled")  # fmt: skip
    builder.output("y")
    return builder.model()


MODELS: dict[str, Callable[[], model_pb2.Model]] = {
    "convolutional": convolutional, "looping": looping, "custom": custom,
}  # fmt: skip


def loaded(name: str) -> mlferry.MLModel:
    return mlferry.MLModel(MODELS[name](), custom_layers={"Doubled": Doubled})


def samples(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal((1, 3, 12, 12))} for _ in range(count)]


def same(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("name", MODELS)
def test_one_model_in_many_threads(name: str) -> None:
    """Also the first predictions, which make the plans, at the same time."""
    data = samples(40)
    expected = [loaded(name).predict(sample) for sample in data]
    for _ in range(5):
        model = loaded(name)
        barrier = threading.Barrier(8)

        def work(part: list[dict[str, Any]], model: Any = model, barrier: Any = barrier) -> Any:
            barrier.wait()
            return [model.predict(sample) for sample in part]

        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(work, [data[index::8] for index in range(8)]))
        matches = [parts[index % 8][index // 8] for index in range(len(data))]
        same(matches, expected)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_pickled(name: str) -> None:
    data = samples(2)
    model = loaded(name)
    expected = [model.predict(sample) for sample in data]  # its plans do not travel
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        same([other.predict(sample) for sample in data], expected)
        assert other.get_spec() == model.get_spec()
    other.short_description = "changed"
    assert model.short_description == ""


def test_models_travel_to_other_processes() -> None:
    data = samples(4)
    model = mlferry.MLModel(convolutional())
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        same(list(pool.map(model.predict, data)), [model.predict(sample) for sample in data])


def test_a_pipeline_is_pickled() -> None:
    model = mlferry.MLModel(broken_models.pipeline())
    assert pickle.loads(pickle.dumps(model)).get_spec() == model.get_spec()


def test_onnx_files_in_many_threads(tmp_path: Path) -> None:
    """The process that helps to read them answers one after the other."""
    helper = pytest.importorskip("onnx.helper")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, [1, 4])],
        [helper.make_tensor_value_info("y", 1, [1, 4])],
    )  # fmt: skip
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(mlferry.convert, [data] * 24))
    for model in models:
        assert model.predict({"x": [[-1, 0, 1, 2]]})["y"].tolist() == [[0, 0, 1, 2]]


LONG = {
    "predicting": "while True: model.predict({'x': x})",
    "converting": "while True: mlferry.convert('m.onnx')",
    "quantizing": "while True: mlferry.quantize_weights(model, 4, 'kmeans').save('q.mlmodel')",
}
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
import numpy as np
import mlferry
from tests.models.test_concurrency import convolutional
model = mlferry.MLModel(convolutional())
x = np.ones((1, 3, 12, 12))
mlferry.convert("m.onnx")  # what is imported here may not be interrupted
model.predict({{'x': x}})
try:
    print("ready", flush=True)  # from here on: the interrupt comes whenever this process waits
    {work}
except KeyboardInterrupt:
    print("interrupted", model.predict({{'x': x}})['a2'].shape, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("name", LONG)
def test_an_interrupt_ends_long_work(name: str, tmp_path: Path) -> None:
    from tests.spec.test_interrupted import source

    source(tmp_path / "m.onnx")
    for wait in (0.05, 0.2, 0.5):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(work=LONG[name])], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(wait)
            start = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: its helpers get it, too
            try:
                out, error = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        assert (out, error) == ("interrupted (1, 4, 12, 12)\n", "")
        assert time.monotonic() - start < 5
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"m.onnx", "q.mlmodel"}
