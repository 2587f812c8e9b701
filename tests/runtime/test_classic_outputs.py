"""Outputs of the classic, five-axes mapping come in the shape that the description declares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.spec import features
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

X = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
POOLED = X.reshape(3, 3, 2, 2, 2).max((2, 4))


def classic(declared: tuple[int, ...] | None) -> model_pb2.Model:
    """x [3, 6, 4] -> activation -> max pooling by 2 -> y."""
    spec = model_pb2.Model(specificationVersion=1)
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((3, 6, 4)))
    layers = spec.neuralNetwork.layers
    layers.add(name="a", input=["x"], output=["h"]).activation.linear.alpha = 1
    pool = layers.add(name="pool", input=["h"], output=["y"]).pooling
    pool.type = nn.PoolingLayerParams.MAX
    pool.kernelSize[:] = pool.stride[:] = [2, 2]
    pool.valid.SetInParent()
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array(declared))
    return spec


ROWS = [
    ((3, 3, 2), (3, 3, 2)),
    ((18,), (18,)),
    ((1, 3, 3, 2), (1, 3, 3, 2)),
    (None, (1, 1, 3, 3, 2)),
    ((7,), (1, 1, 3, 3, 2)),
]


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
@pytest.mark.parametrize(("declared", "shape"), ROWS)
def test_declared_shapes(library: Any, engine: str, declared: Any, shape: Any) -> None:
    if engine == "onnxruntime":
        library("onnxruntime")
    model = mlferry.MLModel(classic(declared), engine=engine)
    actual = model.predict({"x": X})["y"]
    np.testing.assert_array_equal(actual, POOLED.reshape(shape))
    assert actual.shape == shape
    for one in model.predict([{"x": X}, {"x": X}]):
        np.testing.assert_array_equal(one["y"], actual)
    np.testing.assert_array_equal(model.intermediate({"x": X}, ["y"])["y"], actual)
    assert model.intermediate({"x": X}, ["h"])["h"].shape == (1, 1, 3, 6, 4)
    assert mlferry.shapes(model, {"x": X})["y"] == (1, 1, 3, 3, 2)
    report = mlferry.compare_models(model, mlferry.MLModel(classic(None)), [{"x": X}])
    assert report.outputs["y"].numbers["largest_difference"] == 0
    assert mlferry.first_difference(model, mlferry.MLModel(classic(None)), {"x": X}) is None


def test_several_samples_in_one_array_keep_five_axes() -> None:
    both = np.stack([X, 2 * X])[None]
    actual = mlferry.MLModel(classic((3, 3, 2))).predict({"x": both})["y"]
    np.testing.assert_array_equal(actual, np.stack([POOLED, 2 * POOLED])[None])


@pytest.mark.parametrize(("declared", "shape"), ROWS)
def test_exported_models_give_the_same_shapes(library: Any, declared: Any, shape: Any) -> None:
    runtime, _ = library("onnxruntime"), library("onnx")
    model = mlferry.export_onnx(mlferry.MLModel(classic(declared)))
    session = runtime.InferenceSession(model.SerializeToString())
    actual = session.run(None, {"x": X})[0]
    assert actual.shape == shape
    np.testing.assert_array_equal(actual, POOLED.reshape(shape))
