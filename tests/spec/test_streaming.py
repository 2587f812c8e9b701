"""A model in pieces is what protobuf itself makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import limits
from mlferry.errors import LimitError
from mlferry.layers.builder import Builder
from mlferry.spec import io, streaming, weights
from mlferry.spec.proto import model_pb2
from tests.layers.case import Case, network
from tests.layers.test_kernels import CASES


@pytest.fixture(autouse=True)
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_WHOLE", -1)


def same(spec: model_pb2.Model, pieces: int) -> None:
    result = streaming.serialized(spec)
    parts = list(result)
    assert b"".join(parts) == spec.SerializeToString(deterministic=True)
    assert len(result) == sum(map(len, parts))
    assert list(result) == parts
    assert len(parts) >= pieces


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer(case: Case) -> None:
    spec = model_pb2.Model(specificationVersion=4)
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    spec.neuralNetwork.CopyFrom(model)
    count = sum(1 for _ in weights.all_weights(spec))
    same(spec, 2 * count + 1)


def dense(name: str = "dense") -> Builder:
    builder = Builder()
    builder.input("x", (1, 12))
    builder.layer(
        "innerProduct", name, ["x"], ["y"], inputChannels=12, outputChannels=3, hasBias=True,
        weights=np.arange(36, dtype=np.float32), bias=np.ones(3, np.float16),
    )  # fmt: skip
    builder.output("y", description="größer")
    return builder


def classifier() -> model_pb2.Model:
    builder = dense()
    return builder.model(builder.classifier(["a", "b", "ü"], "y"))


def described() -> model_pb2.Model:
    spec = dense().model()
    for key in "zyxwvu":
        spec.description.metadata.userDefined[key] = key * 3
    return spec


def updatable() -> model_pb2.Model:
    model = mlferry.MLModel(classifier())
    return model.get_spec()


def pipeline() -> model_pb2.Model:
    spec = model_pb2.Model(specificationVersion=4)
    spec.pipelineClassifier.pipeline.models.extend([dense().model(), classifier()])
    spec.pipelineClassifier.pipeline.names.extend(["one", "two"])
    return spec


def branches() -> model_pb2.Model:
    spec = dense().model()
    layer = spec.neuralNetwork.layers.add(name="branch", input=["x"], output=["z"])
    layer.branch.ifBranch.layers.extend(dense("inside").model().neuralNetwork.layers)
    layer.branch.elseBranch.SetInParent()
    layer.inputTensor.add(rank=2, dimValue=[1, 12])
    return spec


def custom() -> model_pb2.Model:
    spec = dense().model()
    layer = spec.neuralNetwork.layers.add(name="own", input=["y"], output=["z"])
    layer.custom.className = "Own"
    for name in "cab":
        layer.custom.parameters[name].doubleValue = 0.5
    for values in (np.ones(5, np.float32), np.ones(7, np.uint8)):
        weights.write(layer.custom.weights.add(), values)
    weights.write_lut(layer.custom.weights.add(), np.arange(4), 2, np.ones(4))
    return spec


MODELS = (classifier, described, updatable, pipeline, branches, custom)


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_models(make: Callable[[], model_pb2.Model], tmp_path: Path) -> None:
    spec = make()
    same(spec, 5)
    path = io.save_spec(spec, tmp_path / "model.mlmodel")
    assert path.read_bytes() == spec.SerializeToString(deterministic=True)


def test_fields_of_a_newer_format_stay() -> None:
    """Where a message has fields that are not known, protobuf writes the whole model."""
    data = dense().model().SerializeToString(deterministic=True)
    newer = model_pb2.Model.FromString(data + bytes([0xFA, 0x7F, 2, 1, 2]))  # the field 2047
    assert newer.SerializeToString(deterministic=True) != data
    same(newer, 1)


def test_a_model_that_is_too_large_is_refused_before_its_bytes_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = dense().model()
    monkeypatch.setattr(limits, "MODEL_BYTES", 100)
    monkeypatch.setattr(streaming, "_pieces", lambda _: pytest.fail("they are made"))
    with pytest.raises(LimitError, match="at least 155 bytes"):
        streaming.serialized(spec)


def test_weights_that_lie_outside_are_put_inside() -> None:
    """What is read is the same all the time; afterwards the message is as without."""
    expected = dense().model()
    large = np.arange(1 << 19, dtype=np.float32)
    weights.write(expected.neuralNetwork.layers[0].innerProduct.weights, large)
    with weights.outside():
        spec = dense().model()
        target = spec.neuralNetwork.layers[0].innerProduct.weights
        weights.write(target, large)
        assert spec.neuralNetwork.layers[0].innerProduct.ByteSize() < 1000
        copied = model_pb2.Model()
        copied.CopyFrom(spec)
        target = copied.neuralNetwork.layers[0].innerProduct.weights
        assert weights.encoding(target) == weights.Encoding("float32", 32)
        assert weights.count(target) == large.size
        np.testing.assert_array_equal(weights.stored(target), large)
        np.testing.assert_array_equal(weights.read(target, (512, 1024)), large.reshape(512, -1))
        weights.put_inside(copied)
    assert copied == expected
    lost: Any = spec.neuralNetwork.layers[0].innerProduct.weights
    assert weights.encoding(lost) == weights.Encoding("raw", 8)  # which every check refuses
