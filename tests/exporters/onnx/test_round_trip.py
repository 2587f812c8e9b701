"""ONNX to Core ML and back: the exported model gives what the source gives.

The oracles know nothing of mlferry: outputs that come with the onnx package, onnxruntime on the
source, and Keras's own outputs of files that Apple's converter wrote.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mlferry
from mlferry.errors import MlferryError
from tests.converters.onnx import test_ops as ops, test_stored_models as stored
from tests.converters.onnx.test_stored_models import REAL, STORED
from tests.exporters.onnx.support import Array, run

CLOSE = 1e-4  # of the range of an output
DATA = os.environ.get("MLFERRY_DATA", "")
CLASSIC = sorted(Path(DATA, "rank5_cases").glob("*.mlmodel")) if DATA else []


def both(model: mlferry.MLModel, inputs: Mapping[str, Any], **options: Any) -> list[list[Array]]:
    """What the exported model gives, and what the engine does."""
    exported = mlferry.export_onnx(model, **options)
    types = {i.name: i.type.tensor_type for i in exported.graph.input}
    feed = {
        name: np.asarray(x)
        .astype(onnx.helper.tensor_dtype_to_np_dtype(types[name].elem_type))
        .reshape([d.dim_value for d in types[name].shape.dim])
        for name, x in inputs.items()
    }
    engine = mlferry.MLModel(model.spec, engine="onnxruntime", threads=1)
    return [list(run(exported, feed).values()), list(engine.predict(inputs).values())]


def agree(got: Array, expected: Any, part: float = CLOSE) -> None:
    right = np.asarray(expected)
    right = right.reshape(right.shape or (1,))  # Core ML has no scalars
    assert got.shape == right.shape
    right = right.astype(np.float64)
    finite = right[np.isfinite(right)]
    size = max(float(np.ptp(finite)), float(np.abs(finite).max()), 1e-6) if finite.size else 1.0
    np.testing.assert_allclose(got, right, rtol=0, atol=part * size)


@pytest.mark.parametrize("name", list(ops.CASES))
def test_ops(name: str, library: Callable[[str], Any]) -> None:
    source, inputs = ops.model(ops.CASES[name])
    expected = library("onnxruntime").InferenceSession(source.SerializeToString()).run(None, inputs)
    for actual in both(mlferry.convert(source), inputs):
        for got, right in zip(actual, expected, strict=True):
            agree(got, right)


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_stored_models(path: Path) -> None:
    source = onnx.load(path / "model.onnx")
    folder = path / "test_data_set_0"
    constants = {t.name for t in source.graph.initializer}
    names = [v.name for v in source.graph.input if v.name not in constants]
    inputs = dict(zip(names, stored.tensors(folder, "input"), strict=True))
    shapes = [mlferry.TensorType(name=n, shape=x.shape) for n, x in inputs.items()]
    try:
        model = mlferry.convert(source, inputs=shapes)
        model.predict(inputs)
    except MlferryError:
        pytest.skip("does not convert; test_stored_models.py says why")
    for actual in both(model, inputs):
        for got, expected in zip(actual, stored.tensors(folder, "output"), strict=True):
            agree(got, expected)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, shared_data: Path, library: Callable[[str], Any]) -> None:
    path = shared_data / name
    model = mlferry.convert(path)
    rng = np.random.default_rng(5)
    inputs = {
        f.name: rng.uniform(0, 255, tuple(f.type.multiArrayType.shape)).astype(np.float32)
        for f in model.spec.description.input
    }
    expected = stored.ORACLES.get(name, stored.by_onnxruntime)(path, library, inputs)
    for actual in both(model, inputs):
        for got, right in zip(actual, expected, strict=True):
            agree(got, right)


@pytest.mark.skipif(not CLASSIC, reason="MLFERRY_DATA does not name a folder with rank5_cases")
@pytest.mark.parametrize("path", CLASSIC or [Path("none")], ids=lambda path: path.stem)
def test_classic_files(path: Path) -> None:
    """Networks in the classic mapping, of Apple's converter, beside Keras's own outputs."""
    with np.load(path.with_suffix(".npz")) as data:
        inputs = {name[3:]: data[name] for name in data if name.startswith("in:")}
        expected = {name[4:]: data[name] for name in data if name.startswith("out:")}
        delta = float(data["delta"])
    model = mlferry.MLModel(path)
    names = [feature.name for feature in model.spec.description.output]
    for actual in both(model, inputs, input_shapes={name: x.shape for name, x in inputs.items()}):
        results = dict(zip(names, actual, strict=True))
        for name, value in expected.items():
            np.testing.assert_allclose(results[name].ravel(), value.ravel(), rtol=0, atol=delta)
