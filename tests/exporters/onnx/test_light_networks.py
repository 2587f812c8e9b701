"""The light networks of the onnx package, converted and back: as onnxruntime computes the source.

As stored their weights are constant, which tests nothing: they are replaced.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

import mlferry
from tests.exporters.onnx.support import Array
from tests.exporters.onnx.test_round_trip import agree, both

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


class Light(NamedTuple):
    """A network with random weights.

    Attributes:
        converted: the network.
        inputs: a random sample.
        expected: the outputs of the source.
    """

    converted: mlferry.MLModel
    inputs: dict[str, Array]
    expected: list[Array]


def randomized(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Weights of the size that keeps activations in range; statistics stay positive."""

    def normal(deviation: float, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(deviation)

    roles: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            roles[name] = (node.op_type, place)
    result = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape":
            (shape,) = (result[name] for name in node.input)
            result[node.output[0]] = np.zeros(shape, np.float32)
            model.graph.node.remove(node)
    del model.graph.initializer[:]
    for name, array in result.items():
        op, place = roles.get(name, ("", 0))
        if array.dtype != np.float32:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            continue
        if op == "BatchNormalization" and place in (1, 4):
            values = rng.uniform(0.5, 1.5, array.shape)
        elif array.ndim > 1:
            fan = float(np.prod(array.shape[1:])) if op != "MatMul" else array.shape[0]
            values = normal(np.sqrt(2 / fan), array.shape)
        else:
            values = normal(0.1, array.shape)
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(values.astype(np.float32, copy=False), name)
        )
    model.ir_version = 8  # from 4 on, initializers need not be inputs
    kept = [v for v in model.graph.input if v.name not in result]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


@pytest.fixture(scope="module", params=LIGHT, ids=lambda path: path.stem)
def light(request: pytest.FixtureRequest, library: Callable[[str], Any]) -> Light:
    """One network at a time: some have hundreds of megabytes."""
    ort, rng = library("onnxruntime"), np.random.default_rng(3)
    source = randomized(onnx.load(request.param), rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = ort.InferenceSession(
            source.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    inputs = {
        i.name: rng.normal(size=[1 if not isinstance(n, int) else n for n in i.shape]).astype(
            np.float32
        )
        for i in session.get_inputs()
    }
    return Light(mlferry.convert(source), inputs, session.run(None, inputs))


def test_converted(light: Light) -> None:
    actual = light.converted.predict(light.inputs)
    for got, reference in zip(actual.values(), light.expected, strict=True):
        assert got.shape == reference.shape
        assert np.abs(got - reference).max() <= 1e-4 * max(np.ptp(reference), 1e-6)


def test_exported(light: Light) -> None:
    for actual in both(light.converted, light.inputs):
        for got, right in zip(actual, light.expected, strict=True):
            agree(got, right)
