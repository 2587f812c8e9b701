"""Updatable models: what training on a device needs stays through every tool, and is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import SpecError, UnsupportedModelError, ValidationError
from mlferry.layers.builder import Builder
from mlferry.layers.training import mark_updatable
from mlferry.models import flexible_shapes, utils
from mlferry.models.inspect_rich import renderables
from mlferry.models.neural_network import AdamParams, SgdParams
from mlferry.spec import features
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

WEIGHTS = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)
SAMPLE = {"image": np.random.default_rng(1).random((1, 3, 4, 4), np.float32)}


def updatable(name: str = "image") -> mlferry.MLModel:
    """image -> convolution fc, which is trained -> softmax, with a loss on it."""
    builder = Builder()
    builder.input(name, (1, 3, 4, 4))
    builder.layer("activation", "relu", [name], ["r"], ReLU={})
    builder.layer(
        "convolution", "fc", ["r"], ["s"], outputChannels=3, kernelChannels=3, kernelSize=[4, 4],
        valid={}, hasBias=True, weights=WEIGHTS, bias=np.zeros(3, np.float32),
    )  # fmt: skip
    builder.layer("softmax", "sm", ["s"], ["p"])
    builder.output("p")
    spec = builder.model()
    spec.isUpdatable = True
    trained = spec.neuralNetwork.layers[1]
    mark_updatable(trained)
    update = spec.neuralNetwork.updateParams
    loss = update.lossLayers.add(name="loss").categoricalCrossEntropyLossLayer
    loss.input, loss.target = "p", "p_true"
    update.optimizer.sgdOptimizer.learningRate.defaultValue = 0.01
    update.optimizer.sgdOptimizer.miniBatchSize.defaultValue = 4
    update.epochs.defaultValue = 5
    spec.description.trainingInput.add().CopyFrom(spec.description.input[0])
    spec.description.trainingInput.add(name="p_true").type.CopyFrom(
        features.multi_array((1,), "int32")
    )
    return mlferry.MLModel(spec)


def renamed(old: str, new: str) -> model_pb2.Model:
    spec = updatable().get_spec()
    utils.rename_feature(spec, old, new)
    return spec


def in_pipeline() -> mlferry.MLModel:
    builder = Builder()
    builder.input("photo", (1, 3, 4, 4))
    builder.layer("activation", "first", ["photo"], ["image"], sigmoid={})
    builder.output("image")
    return utils.make_pipeline(mlferry.MLModel(builder.model()), updatable())


def ranged() -> model_pb2.Model:
    spec = updatable().get_spec()
    flexible_shapes.set_multiarray_ndshape_range(spec, "image", [1, 3, 4, 4], [1, 3, 8, 8])
    return spec


def doubles() -> model_pb2.Model:
    spec = utils.change_input_output_types(updatable(), {"image": "float64"}).get_spec()
    utils.convert_double_to_float_multiarray_type(spec)
    return spec


TOOLS: dict[str, Callable[[], mlferry.MLModel | model_pb2.Model]] = {
    "labels": lambda: utils.attach_class_labels(updatable(), ["a", "b", "c"]),
    "other labels": lambda: utils.attach_class_labels(
        utils.attach_class_labels(updatable(), [1, 2, 3]), [4, 5, 6]
    ),
    "image": lambda: utils.change_input_output_types(updatable(), {"image": "RGB"}),
    "doubles": doubles,
    "input": lambda: renamed("image", "photo"),
    "output": lambda: renamed("p", "chances"),
    "target": lambda: renamed("p_true", "answer"),
    "range": ranged,
    "8 bits": lambda: mlferry.quantize_weights(updatable(), 8),
    "half": lambda: utils.convert_neural_network_weights_to_fp16(updatable()),
    "part": lambda: utils.extract_submodel(updatable(), ["p"], ["r"]),
    "pipeline": in_pipeline,
}


@pytest.mark.parametrize("name", TOOLS)
def test_tools_keep_what_training_needs(name: str) -> None:
    result = TOOLS[name]()
    spec = result.get_spec() if isinstance(result, mlferry.MLModel) else result
    assert spec.isUpdatable
    inner = spec.pipeline.models[-1] if spec.HasField("pipeline") else spec
    network = getattr(inner, inner.WhichOneof("Type") or "")
    update = network.updateParams
    (loss,) = update.lossLayers
    assert loss.categoricalCrossEntropyLossLayer.input in network.layers[-1].output
    assert update.epochs.defaultValue == 5
    assert update.optimizer.HasField("sgdOptimizer")
    assert [layer.name for layer in network.layers if layer.isUpdatable] == ["fc"]
    training = {f.name: f.type for f in spec.description.trainingInput}
    inputs = {f.name: f.type for f in spec.description.input}
    target = loss.categoricalCrossEntropyLossLayer.target
    if isinstance(network, nn.NeuralNetworkClassifier):  # which trains on labels
        target = spec.description.predictedFeatureName
        assert training[target] == {f.name: f.type for f in spec.description.output}[target]
    assert training.keys() == inputs.keys() | {target}
    assert all(training[key] == inputs[key] for key in inputs)


def test_parts_without_the_loss_are_refused_unless_training_is_given_up() -> None:
    with pytest.raises(SpecError, match=r"lacks the blob 'p'.*without_training"):
        utils.extract_submodel(updatable(), ["s"])
    plain = utils.without_training(updatable())
    part = utils.extract_submodel(plain, ["s"])
    np.testing.assert_allclose(
        part.predict(SAMPLE)["s"], updatable().intermediate(SAMPLE, ["s"])["s"]
    )
    spec = plain.get_spec()
    assert not spec.isUpdatable
    assert not spec.description.trainingInput
    assert not spec.neuralNetwork.HasField("updateParams")
    assert not spec.neuralNetwork.layers[1].convolution.weights.isUpdatable
    assert "updatable" not in str(plain)


def test_only_the_last_model_of_a_pipeline_trains() -> None:
    builder = Builder()
    builder.input("p", (1, 3, 1, 1))
    builder.layer("activation", "last", ["p"], ["y"], sigmoid={})
    builder.output("y")
    with pytest.raises(ValidationError, match="only the last model of an updatable pipeline"):
        utils.make_pipeline(updatable(), mlferry.MLModel(builder.model()))


def _terminal(model: mlferry.MLModel) -> str:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=200)
    for item in renderables(model.describe()):
        console.print(item)
    return str(console.file.getvalue())


@pytest.mark.parametrize(
    "text",
    [
        str,
        lambda model: model.describe().html(),
        lambda model: json.dumps(model.describe().to_dict()),
        _terminal,
    ],
)
def test_it_is_told(text: Callable[[mlferry.MLModel], str]) -> None:
    for model in (updatable(), in_pipeline()):
        shown = text(model)
        for fact in ("updatable", "fc", "p_true", "int32"):
            assert fact in shown
        assert "raining" in shown


def test_training_survives_a_file(tmp_path: Path) -> None:
    updatable().save(tmp_path / "m.mlmodel")
    loaded = mlferry.MLModel(tmp_path / "m.mlmodel")
    assert loaded.describe().updatable_layers == ["fc"]
    assert [f.name for f in loaded.describe().training_inputs] == ["image", "p_true"]
    assert (
        loaded.spec.description.trainingInput[1].type.multiArrayType.dataType
    ) == ft.ArrayFeatureType.INT32


def plain() -> mlferry.MLModel:
    return utils.without_training(updatable())


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"], [1, 2, 3]])
@pytest.mark.parametrize("optimizer", [SgdParams(0.1, batch=2, momentum=0.5), AdamParams(0.01)])
def test_a_network_becomes_updatable(optimizer: SgdParams | AdamParams, labels: Any) -> None:
    model = plain() if labels is None else utils.attach_class_labels(plain(), labels)
    result = utils.with_training(model, ["fc"], optimizer, epochs=[2, 5])
    assert "updatable" in str(result)
    target = "classLabel" if labels else "p_true"
    assert [f.name for f in result.spec.description.trainingInput] == ["image", target]
    losses: list[float] = []
    samples = [{**SAMPLE, target: labels[1] if labels else 1}] * 3
    result.update(samples, 5, progress=lambda moment: losses.append(moment.loss))
    assert len(losses) == 5
    assert losses[-1] < losses[0]


def test_networks_that_do_not_become_updatable() -> None:
    optimizer = SgdParams()
    with pytest.raises(SpecError, match="no layer 'fd'"):
        utils.with_training(plain(), ["fd"], optimizer)
    with pytest.raises(SpecError, match="no loss 'hinge'"):
        utils.with_training(plain(), ["fc"], optimizer, loss="hinge")
    with pytest.raises(UnsupportedModelError, match="a device trains neural networks"):
        utils.with_training(in_pipeline(), ["fc"], optimizer)
    spec = plain().get_spec()
    spec.neuralNetwork.layers.add(name="mean", input=["p"], output=["q"]).mvn.SetInParent()
    spec.description.output[0].name = "q"
    with pytest.raises(ValidationError, match="through which a device cannot train 'fc'"):
        utils.with_training(mlferry.MLModel(spec), ["fc"], optimizer, loss="squared error")
