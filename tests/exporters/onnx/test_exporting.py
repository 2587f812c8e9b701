"""`mlferry.export_onnx`: interfaces, weights, custom layers, errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import mlferry
from mlferry.errors import (
    ExportError,
    MissingDependencyError,
    ModelFileError,
    UnsupportedLayersError,
)
from mlferry.exporters.onnx import export
from mlferry.exporters.onnx.interface import LABELS, PREDICTED, PROBABILITIES
from mlferry.layers.builder import Builder
from mlferry.models.utils import make_pipeline
from mlferry.onnx_graph.graph import IR_VERSION, OPSET
from mlferry.spec import features, weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from tests.exporters.onnx.support import Array, checked, run

RNG = np.random.default_rng(4)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def convolutional(size: int = 8, kind: str = "array") -> Builder:
    """A convolution, its activation, and a dense layer of four outputs."""
    b = Builder()
    shape = (1, 3, size, size)
    layout = kind if kind != "array" else ""
    b.input("image", shape, features.image(size, size, layout) if layout else None)
    b.layer(
        "convolution", "conv", ["image"], ["c"], outputChannels=4, kernelChannels=3,
        kernelSize=(3, 3), stride=(1, 1), dilationFactor=(1, 1), nGroups=1, hasBias=True,
        valid={}, weights=normal(4, 3, 3, 3), bias=normal(4),
    )  # fmt: skip
    b.layer("activation", "relu", ["c"], ["r"], ReLU={})
    b.layer("pooling", "pool", ["r"], ["p"], type="AVERAGE", globalPooling=True, valid={})
    b.layer("squeeze", "squeeze", ["p"], ["s"], axes=(2, 3))
    b.layer(
        "innerProduct", "dense", ["s"], ["d"], inputChannels=4, outputChannels=4, hasBias=True,
        weights=normal(4, 4), bias=normal(4),
    )  # fmt: skip
    b.layer("softmaxND", "softmax", ["d"], ["y"], axis=-1)
    return b


def close(result: Any, expected: Any, part: float = 1e-5) -> None:
    right = np.asarray(expected, np.float64)
    assert np.shape(result) == right.shape
    assert np.abs(result - right).max() <= part * np.abs(right).max()


def ops(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def model_of(builder: Builder) -> mlferry.MLModel:
    builder.output("y")
    return mlferry.MLModel(builder.model())


# ---- files --------------------------------------------------------------------------------------


def test_a_lean_graph_that_old_releases_read(tmp_path: Path) -> None:
    model = model_of(convolutional())
    result = mlferry.export_onnx(model, tmp_path / "net.onnx")
    assert ops(result) == ["Conv", "Relu", "GlobalAveragePool", "Squeeze", "Gemm", "Softmax"]
    assert (result.ir_version, result.opset_import[0].version) == (IR_VERSION, OPSET) == (8, 18)
    assert onnx.load(tmp_path / "net.onnx") == result
    assert [node.output[0] for node in result.graph.node][:2] == ["c", "r"]
    x = normal(1, 3, 8, 8)
    close(run(result, {"image": x})["y"], model.predict({"image": x})["y"])


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    model = model_of(convolutional())
    with pytest.raises(ModelFileError, match=r"the suffix must be \.onnx, not '\.mlmodel'"):
        mlferry.export_onnx(model, tmp_path / "net.mlmodel")
    with pytest.raises(ModelFileError, match="cannot write into"):
        mlferry.export_onnx(model, tmp_path / "nowhere" / "net.onnx")
    (tmp_path / "old.onnx").write_bytes(b"old")
    model.spec.neuralNetwork.layers[0].convolution.weights.Clear()
    with pytest.raises(mlferry.MlferryError):
        mlferry.export_onnx(model, tmp_path / "old.onnx")
    assert (tmp_path / "old.onnx").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.onnx"]


def test_a_path_or_a_message_will_do(tmp_path: Path) -> None:
    path = model_of(convolutional()).save(tmp_path / "net.mlmodel")
    assert mlferry.export_onnx(path) == mlferry.export_onnx(mlferry.MLModel(path).get_spec())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_packages_that_are_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(convolutional())
    monkeypatch.setitem(sys.modules, package, None)
    if package == "onnx":
        with pytest.raises(MissingDependencyError, match=r"pip install 'mlferry\[onnx\]'"):
            mlferry.export_onnx(model)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlferry\[onnxruntime\]'"):
        mlferry.MLModel(model.spec, engine="onnxruntime")


# ---- inputs and outputs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "number"), [("float32", 1), ("float64", 1), ("int32", 6), ("float16", 10)]
)
def test_types_of_arrays(dtype: str, number: int) -> None:
    b = Builder()
    b.input("x", (2, 3), features.multi_array((2, 3), dtype))
    b.layer("multiply", "twice", ["x"], ["y"], alpha=2)
    b.output("y", features.multi_array((2, 3), dtype))
    model = mlferry.export_onnx(b.model())
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.elem_type == number
    x = np.arange(6).reshape(2, 3).astype("float32" if dtype == "float64" else dtype)
    assert run(model, {"x": x})["y"].tolist() == (2 * x).tolist()


def test_numbers_and_optional_inputs() -> None:
    b = Builder()
    b.input("x", (3,))
    b.input("n", (1,), features.FeatureType(doubleType={}))
    b.input("more", (3,))
    b.layer("addBroadcastable", "sum", ["x", "n"], ["s"])
    b.layer("addBroadcastable", "all", ["s", "more"], ["y"])
    b.output("y")
    spec = b.model()
    spec.description.input[2].type.isOptional = True
    spec.description.input[2].type.multiArrayType.floatDefaultValue = 5
    result = mlferry.export_onnx(spec)
    inputs = {"x": np.array([1, 2, 3], np.float32), "n": np.array([10], np.float32)}
    assert run(result, inputs)["y"].tolist() == [16, 17, 18]
    assert run(result, {**inputs, "more": np.zeros(3, np.float32)})["y"].tolist() == [11, 12, 13]


def test_an_output_that_is_an_input_or_comes_twice() -> None:
    b = Builder()
    b.input("x", (2,))
    b.layer("copy", "copy", ["x"], ["y"])
    b.layer("copy", "again", ["y"], ["z"])
    for name in ("y", "z"):
        b.output(name)
    actual = run(mlferry.export_onnx(b.model()), {"x": np.array([1, 2], np.float32)})
    assert {name: y.tolist() for name, y in actual.items()} == {"y": [1, 2], "z": [1, 2]}


def flexible() -> mlferry.MLModel:
    b = convolutional()
    b.output("y")
    spec = b.model()
    shape = spec.description.input[0].type.multiArrayType
    for low, high in ((1, -1), (3, 3), (4, 64), (4, 64)):
        features.set_range(shape.shapeRange.sizeRanges.add(), low, high)
    return mlferry.MLModel(spec)


def test_ranges_become_names() -> None:
    model = flexible()
    result = mlferry.export_onnx(model)
    dims = result.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["image_0", 3, "image_2", "image_3"]
    for shape in ((1, 3, 4, 9), (1, 3, 32, 8), (5, 3, 16, 16)):
        x = normal(*shape)
        close(run(result, {"image": x})["y"], model.predict({"image": x})["y"])


def test_names_and_numbers_instead_of_described_shapes() -> None:
    b = convolutional()
    b.output("y")
    model = mlferry.MLModel(b.model())
    shape = ("batch", 3, "height", "height")
    result = mlferry.export_onnx(model, input_shapes={"image": shape})
    dims = result.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, "height", "height"]
    x = normal(2, 3, 8, 8)
    halves = [run(result, {"image": part})["y"] for part in (x[:1], x[1:])]
    close(run(result, {"image": x})["y"], np.concatenate(halves))
    with pytest.raises(
        ExportError, match=r"input_shapes has 'picture'; the inputs are \['image'\]"
    ):
        mlferry.export_onnx(model, input_shapes={"picture": shape})


def test_enumerated_shapes() -> None:
    b = Builder()
    b.input("x", (2, 3))
    b.layer("reduceSum", "sum", ["x"], ["y"], axes=(1,), keepDims=True)
    b.output("y")
    spec = b.model()
    for shape in ((2, 5), (2, 7)):
        spec.description.input[0].type.multiArrayType.enumeratedShapes.shapes.add(shape=shape)
    result = mlferry.export_onnx(spec)
    dims = result.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [2, "x_1"]
    assert run(result, {"x": np.ones((2, 7), np.float32)})["y"].tolist() == [[7], [7]]


def test_the_classic_mapping_with_sequence_and_batch() -> None:
    network = nn.NeuralNetwork()
    layer = network.layers.add(name="dense", input=["x"], output=["y"])
    layer.innerProduct.inputChannels, layer.innerProduct.outputChannels = 3, 2
    weights.write(layer.innerProduct.weights, normal(2, 3))
    spec = model_pb2.Model(specificationVersion=1)
    spec.neuralNetwork.CopyFrom(network)
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((3,)))
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array((2,)))
    model = mlferry.MLModel(spec)
    for shape in ((3,), (4, 3), (5, 4, 3), (5, 4, 3, 1, 1)):
        x = normal(*shape)
        result = mlferry.export_onnx(model, input_shapes={"x": shape})
        close(run(result, {"x": x})["y"], model.predict({"x": x})["y"])
    with pytest.raises(ExportError, match="with sequence and batch in front"):
        mlferry.export_onnx(model, input_shapes={"x": (1, 2, 3, 4)})


# ---- images and classifiers ---------------------------------------------------------------------


def pixels(layout: str, size: int = 8) -> Array:
    shape = (size, size) if layout == "GRAYSCALE" else (size, size, 3)
    return RNG.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_pixels_are_scaled_and_ordered_in_the_graph(layout: str) -> None:
    b = convolutional(kind=layout)
    b.output("y")
    spec = b.model()
    scaler = spec.neuralNetwork.preprocessing.add(featureName="image").scaler
    scaler.channelScale, scaler.redBias, scaler.greenBias, scaler.blueBias = 1 / 127, -1, -0.5, -2
    model = mlferry.MLModel(spec)
    x = pixels(layout)
    expected = model.predict({"image": x})["y"]
    result = mlferry.export_onnx(model, pixels=True)
    kind = result.graph.input[0].type.tensor_type
    assert kind.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in kind.shape.dim] == [8, 8, 3]
    close(run(result, {"image": x})["y"], expected)
    blob = x.transpose(2, 0, 1)[None].astype(np.float32)
    bias = np.array([-1, -0.5, -2], np.float32).reshape(3, 1, 1)
    blob = blob * np.float32(1 / 127) + bias
    plain = mlferry.export_onnx(model)
    inputs = blob[:, ::-1].copy() if layout == "BGR" else blob
    close(run(plain, {"image": inputs})["y"], expected)


def test_pictures_of_several_sizes() -> None:
    b = convolutional(kind="RGB")
    b.output("y")
    spec = b.model()
    bounds = spec.description.input[0].type.imageType.imageSizeRange
    features.set_range(bounds.widthRange, 4, 32)
    features.set_range(bounds.heightRange, 4, -1)
    spec.neuralNetwork.preprocessing.add(featureName="image").scaler.channelScale = 0.01
    model = mlferry.MLModel(spec)
    result = mlferry.export_onnx(model, pixels=True)
    dims = result.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["image_0", "image_1", 3]
    for shape in ((4, 9, 3), (20, 32, 3)):
        x = RNG.integers(0, 256, shape).astype(np.uint8)
        close(run(result, {"image": x})["y"], model.predict({"image": x})["y"])
    named = mlferry.export_onnx(model, input_shapes={"image": (1, 3, "height", 8)})
    dims = named.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [1, 3, "height", 8]


def test_gray_pixels_a_mean_image_and_an_image_output() -> None:
    b = Builder()
    b.input("image", (1, 1, 4, 6), features.image(6, 4, "GRAYSCALE"))
    b.layer("multiply", "twice", ["image"], ["y"], alpha=2)
    b.output("y", features.image(6, 4, "GRAYSCALE"))
    spec = b.model()
    mean = normal(24) * 9
    spec.neuralNetwork.preprocessing.add(featureName="image").meanImage.meanImage.extend(mean)
    x = RNG.integers(0, 256, (4, 6)).astype(np.uint8)
    actual = run(mlferry.export_onnx(spec, pixels=True), {"image": x})["y"]
    assert actual.dtype == np.uint8
    assert actual.tolist() == np.asarray(mlferry.MLModel(spec).predict({"image": x})["y"]).tolist()


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_image_outputs(layout: str) -> None:
    b = Builder()
    b.input("image", (1, 3, 4, 6), features.image(6, 4, "RGB"))
    b.layer("multiply", "twice", ["image"], ["y"], alpha=1.7)
    b.output("y", features.image(6, 4, layout))
    spec = b.model()
    x = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    actual = run(mlferry.export_onnx(spec, pixels=True), {"image": x})["y"]
    assert actual.tolist() == np.asarray(mlferry.MLModel(spec).predict({"image": x})["y"]).tolist()
    blob = run(mlferry.export_onnx(spec), {"image": x.transpose(2, 0, 1)[None].astype("f4")})["y"]
    assert blob.shape == (1, 3, 4, 6)


@pytest.mark.parametrize("labels", [["cat", "dög", "emu", "fly"], [10, 20, 30, 40]])
def test_labels_are_metadata(labels: list[Any]) -> None:
    b = convolutional()
    spec = b.model(b.classifier(labels, "y", predicted_probabilities_name="chances"))
    spec.description.metadata.author = "someone"
    model = mlferry.MLModel(spec)
    result = mlferry.export_onnx(model)
    told = {entry.key: entry.value for entry in result.metadata_props}
    assert json.loads(told[LABELS]) == labels
    assert (told[PREDICTED], told[PROBABILITIES]) == ("classLabel", "chances")
    assert told["author"] == "someone"
    x = normal(1, 3, 8, 8)
    expected, actual = model.predict({"image": x}), run(result, {"image": x})
    assert list(actual) == ["chances"]
    close(actual["chances"][0], list(expected["chances"].values()))
    assert labels[int(actual["chances"].argmax())] == expected["classLabel"]
    engine = mlferry.MLModel(spec, engine="onnxruntime", threads=1).predict({"image": x})
    assert engine["classLabel"] == expected["classLabel"]


# ---- weights ------------------------------------------------------------------------------------

MODES = [
    *((bits, "linear") for bits in range(1, 9)), (8, "linear_symmetric"),
    *((bits, "kmeans") for bits in (1, 2, 4, 8)), (6, "linear_lut"), (16, "linear"),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "mode"), MODES)
def test_quantized_weights_stay_quantized(bits: int, mode: str) -> None:
    model = mlferry.quantize_weights(model_of(convolutional()), bits, mode)
    result = mlferry.export_onnx(model)
    stored = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    for name in ("conv.weights", "dense.weights"):
        assert stored[name].dtype == (np.float16 if bits == 16 else np.uint8)
        assert bits == 16 or stored[name].max() < 1 << bits
    wanted_op = "Cast" if bits == 16 else "DequantizeLinear" if "lut" not in mode else "Gather"
    assert ("Gather" if mode == "kmeans" else wanted_op) in ops(result)
    x = normal(1, 3, 8, 8)
    expected = model.predict({"image": x})["y"]
    close(run(result, {"image": x})["y"], expected)
    engine = mlferry.MLModel(model.spec, engine="onnxruntime", threads=1)
    close(engine.predict({"image": x})["y"], expected)


def test_a_bias_of_whole_steps_is_a_zero_point() -> None:
    b = convolutional()
    model = mlferry.quantize_weights(model_of(b), 8, "linear_symmetric")
    result = mlferry.export_onnx(model)
    assert "Add" not in ops(result)
    zero_points = [t for t in result.graph.initializer if t.name.endswith("zero_point")]
    assert {int(n) for t in zero_points for n in numpy_helper.to_array(t).ravel()} == {128}


def test_scales_of_another_number_are_an_error() -> None:
    b = convolutional()
    b.output("y")
    spec = b.model()
    target = spec.neuralNetwork.layers[0].convolution.weights
    weights.write_linear(target, np.zeros((4, 3, 3, 3)), 8, [1, 2, 3], [1, 2, 3])
    with pytest.raises(mlferry.MlferryError, match="quantization scales; 1 or 4 are possible"):
        export(spec)


# ---- custom layers ------------------------------------------------------------------------------


def with_custom_layers() -> model_pb2.Model:
    b = Builder()
    b.input("x", (2, 3))
    b.layer("multiply", "twice", ["x"], ["a"], alpha=2)
    for index, source in enumerate(("a", "b0")):
        parameters = {
            "count": {"intValue": 3}, "name": {"stringValue": "n"}, "on": {"boolValue": True},
            "rate": {"doubleValue": 0.5},
        }  # fmt: skip
        stored: Sequence[Any] = [np.arange(3, dtype=np.float32), np.ones(2, np.float16)]
        b.layer(
            "custom", f"mine{index}", [source], [f"b{index}"], className="AddMean",
            parameters=parameters, weights=stored, output_shapes=[(2, 3)],
        )  # fmt: skip
    b.layer("multiply", "last", ["b1"], ["y"], alpha=3)
    b.output("y")
    return b.model()


class AddMean(mlferry.CustomLayer):
    def evaluate(self, inputs: list[Array]) -> list[Array]:
        return [inputs[0] + self.weights[0].mean() * self.parameters["count"]]


def test_custom_layers_are_ops_of_a_domain() -> None:
    model = mlferry.MLModel(with_custom_layers(), custom_layers={"AddMean": AddMean})
    result = checked(mlferry.export_onnx(model))
    assert {o.domain: o.version for o in result.opset_import} == {"": OPSET, "ai.mlferry.custom": 1}
    first = result.graph.node[1]
    assert (first.op_type, first.domain) == ("AddMean", "ai.mlferry.custom")
    assert list(first.input) == ["a", "mine0.weights.0", "mine0.weights.1"]
    told = {a.name: onnx.helper.get_attribute_value(a) for a in first.attribute}
    assert told == {"blob_inputs": 1, "count": 3, "name": b"n", "on": 1, "rate": 0.5}
    stored = {t.name: numpy_helper.to_array(t) for t in result.graph.initializer}
    assert stored["mine0.weights.1"].dtype == np.float16
    assert stored[result.graph.node[2].input[1]].tolist() == [0, 1, 2]


def test_any_name_of_a_parameter_will_do_but_one() -> None:
    def custom(name: str) -> model_pb2.Model:
        b = Builder()
        b.input("x", (2,))
        b.layer(
            "custom", "mine", ["x"], ["y"], className="Mine", output_shapes=[(2,)],
            parameters={name: {"intValue": 3}},
        )  # fmt: skip
        b.output("y")
        return b.model()

    for name in ("op", "inputs", "outputs", "domain", "self"):
        node = export(custom(name), custom=lambda layer, shapes: shapes).graph.node[0]
        assert {a.name: a.i for a in node.attribute} == {name: 3, "blob_inputs": 1}
    with pytest.raises(UnsupportedLayersError, match="a parameter is called 'blob_inputs'"):
        export(custom("blob_inputs"), custom=lambda layer, shapes: shapes)


def test_a_custom_layer_that_hides_its_shape_is_named() -> None:
    b = Builder()
    b.input("x", (2, 3))
    b.layer("custom", "mine", ["x"], ["a"], className="NobodyKnows", output_shapes=[(2, 3)])
    b.layer("transpose", "turn", ["a"], ["y"], axes=(1, 0))
    b.layer("reduceSum", "sum", ["y"], ["z"], axes=(0,))
    b.output("z")
    with pytest.raises(UnsupportedLayersError, match="register its class with output_shapes") as e:
        mlferry.export_onnx(b.model())
    assert [layer[0] for layer in e.value.layers] == ["sum"]


def test_custom_layers_run_in_a_split_engine() -> None:
    x = np.ones((2, 3), np.float32)
    output = mlferry.MLModel(
        with_custom_layers(), custom_layers={"AddMean": AddMean}, engine="onnxruntime", threads=1
    )
    assert output.predict({"x": x})["y"].tolist() == np.full((2, 3), 24).tolist()
    assert output.intermediate({"x": x}, ["b0"])["b0"].tolist() == np.full((2, 3), 5).tolist()


# ---- what cannot be exported --------------------------------------------------------------------


def test_every_layer_that_cannot_be_expressed_is_named() -> None:
    b = Builder()
    b.input("x", (2, 2))
    b.input("flags", (2,))
    for index in range(2):
        inputs = ["x", *["flags"] * 6]
        b.layer("sliceDynamic", f"slice{index}", inputs, [f"a{index}"], output_shapes=[(2,)])
    b.layer("addBroadcastable", "sum", ["a0", "a1"], ["y"])
    b.output("y")
    with pytest.raises(UnsupportedLayersError) as error:
        mlferry.export_onnx(b.model())
    assert [layer[:2] for layer in error.value.layers] == [
        ("slice0", "sliceDynamic"), ("slice1", "sliceDynamic")
    ]  # fmt: skip
    text = str(error.value)
    assert text.startswith("ONNX cannot express 2 layers:\n  - sliceDynamic 'slice0': the rank of")
    assert 'mlferry.MLModel(model, engine="onnxruntime")' in text


def test_a_pipeline_says_how_to_export_its_networks() -> None:
    first = model_of(convolutional())
    b = Builder()
    b.input("y", (1, 4))
    b.layer("multiply", "twice", ["y"], ["z"], alpha=2)
    b.output("z")
    pipeline = make_pipeline(first, mlferry.MLModel(b.model()))
    with pytest.raises(ExportError, match="networks and programs one by one") as error:
        mlferry.export_onnx(pipeline)
    assert "spec.pipeline.models" in str(error.value)
    x = normal(1, 3, 8, 8)
    blob = x
    for part in pipeline.spec.pipeline.models:
        exported = mlferry.export_onnx(mlferry.MLModel(part))
        blob = next(iter(run(exported, {part.description.input[0].name: blob}).values()))
    close(blob, pipeline.predict({"image": x})["z"])
    engine = mlferry.MLModel(pipeline.spec, engine="onnxruntime", threads=1)
    close(engine.predict({"image": x})["z"], pipeline.predict({"image": x})["z"])


def test_models_without_a_network() -> None:
    spec = model_pb2.Model(specificationVersion=1)
    spec.glmRegressor.SetInParent()
    with pytest.raises(ExportError, match="'glmRegressor' is neither a neural network"):
        export(spec)
