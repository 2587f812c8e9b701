"""ONNX models: the hook, types, quantized weights, images, flexible shapes, bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.converters.onnx import convert as classic
from mlferry.errors import ConversionError, MlferryError, ModelFileError, UnsupportedOpError
from mlferry.spec import weights

F = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any] | None],
    constants: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 18,
    kinds: dict[str, int] | None = None,
) -> onnx.ModelProto:
    kinds = kinds or {}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, kinds.get(n, F), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, F), s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def run(converted: mlferry.MLModel, **inputs: Any) -> np.ndarray:
    (actual,) = converted.predict(inputs).values()
    return actual


RELU = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [1, 3]}, {"y": [1, 3]})


def test_path_bytes_and_message(tmp_path: Path) -> None:
    onnx.save(RELU, tmp_path / "m.onnx")
    (tmp_path / "m.dat").write_bytes(RELU.SerializeToString())
    for source in (RELU, RELU.SerializeToString(), tmp_path / "m.onnx", str(tmp_path / "m.dat")):
        actual = run(mlferry.convert(source), x=np.array([[-1, 0, 2]], np.float32))
        np.testing.assert_array_equal(actual, [[0, 0, 2]])


# ---- the hook --------------------------------------------------------------------------


def with_custom() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Twist", ["h", "w"], ["t"], name="twist_1", domain="com.example",
                         angle=0.5, table=numpy_helper.from_array(np.ones(2, np.float32))),
        helper.make_node("Twist", ["t", "w"], ["u"], name="twist_2", domain="com.example"),
        helper.make_node("Unknown", ["u"], ["y"], name="other"),
    ]  # fmt: skip
    constants = {"w": np.array([1, 2, 3], np.float32)}
    converted = model(nodes, {"x": [1, 3]}, {"y": [1, 3]}, constants)
    for name in ("t", "u"):
        converted.graph.value_info.append(helper.make_tensor_value_info(name, F, [1, 3]))
    return converted


def test_all_unsupported_ops_with_counts_and_names() -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        mlferry.convert(with_custom())
    assert caught.value.ops == {"com.example.Twist": ["twist_1", "twist_2"], "Unknown": ["other"]}
    assert "com.example.Twist (2): twist_1, twist_2" in str(caught.value)


class Scale(mlferry.CustomLayer):
    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [inputs[0] * self.weights[0]]


@pytest.mark.parametrize("key", ["com.example.Twist", "Twist"])
def test_functions_by_op_with_and_without_domain(key: str) -> None:
    seen: list[Any] = []

    def twist(node: Any) -> mlferry.CustomLayerParams:
        seen.append((node.name, [w.tolist() for w in node.get_weights()]))
        return mlferry.CustomLayerParams("Scale", weights=node.get_weights())

    def other(node: Any, builder: Any) -> None:
        builder.layer("activation", node.name, node.input_names, node.output_names, ReLU={})

    functions = {key: twist, "other": other}
    converted = mlferry.convert(with_custom(), custom_conversion_functions=functions)
    assert seen == [("twist_1", [[1, 2, 3]]), ("twist_2", [[1, 2, 3]])]
    loaded = mlferry.MLModel(converted.get_spec(), custom_layers={"Scale": Scale})
    actual = run(loaded, x=np.array([[1, -1, 2]], np.float32))
    np.testing.assert_array_equal(actual, [[1, 0, 18]])


def test_channels_first_data_are_those_of_onnx(rng: np.random.Generator) -> None:
    node = helper.make_node("Twist", ["x"], ["y"], domain="com.example")
    graph = model([node], {"x": [1, 3, 4, 5]}, {"y": [1, 3, 4, 5]})
    seen: list[Any] = []

    class Twist(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            seen.append(inputs[0].shape)
            return inputs

    def twist(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Twist", channels_first=True)

    x = rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
    for converted in (
        mlferry.convert(graph, custom_conversion_functions={"Twist": twist}),
        classic(graph, custom_conversion_functions={"Twist": twist}),
    ):
        loaded = mlferry.MLModel(converted.get_spec(), custom_layers={"Twist": Twist})
        np.testing.assert_array_equal(run(loaded, x=x), x)
    assert seen == [(1, 3, 4, 5)] * 2


def test_attributes_reach_the_function_as_arrays() -> None:
    def twist(node: Any) -> mlferry.CustomLayerParams:
        if node.name == "twist_1":
            assert node.angle == 0.5
            np.testing.assert_array_equal(node.table, [1, 1])
        return mlferry.CustomLayerParams("Scale", weights=node.get_weights())

    functions = {"Twist": twist, "Unknown": lambda node: mlferry.CustomLayerParams("U")}
    mlferry.convert(with_custom(), custom_conversion_functions=functions)


def test_the_user_comes_before_built_in_converters_and_function_bodies() -> None:
    node = helper.make_node("MeanVarianceNormalization", ["x"], ["y"])
    graph = model([node], {"x": [1, 2, 3, 4]}, {"y": [1, 2, 3, 4]})
    functions = {"MeanVarianceNormalization": lambda node: mlferry.CustomLayerParams("MVN")}
    spec = mlferry.convert(graph, custom_conversion_functions=functions).get_spec()
    assert [la.custom.className for la in spec.neuralNetwork.layers] == ["MVN"]


# ---- types -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "described"),
    [(TensorProto.INT64, "int32"), (TensorProto.BOOL, "int32"), (TensorProto.DOUBLE, "float64"),
     (TensorProto.FLOAT16, "float32"), (TensorProto.INT32, "int32")],
)  # fmt: skip
def test_types_of_inputs_and_outputs(kind: int, described: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = model([node], {"x": [2]}, {"y": [2]}, kinds={"x": kind, "y": kind})
    converted = mlferry.convert(graph)
    actual = run(converted, x=np.array([0, 1]))
    assert actual.dtype == described
    assert actual.tolist() == [0, 1]


def test_integers_that_float32_cannot_hold() -> None:
    node = helper.make_node("Add", ["x", "c"], ["y"])
    kinds = {"x": TensorProto.INT64, "y": TensorProto.INT64}
    graph = model([node], {"x": [1]}, {"y": [1]}, {"c": np.array([2**25 + 1])}, kinds=kinds)
    with pytest.raises(ConversionError, match=r"above 2\*\*24"):
        mlferry.convert(graph)


def test_integer_division_goes_towards_zero() -> None:
    kinds = {"x": TensorProto.INT32, "y": TensorProto.INT32}
    node = helper.make_node("Div", ["x", "c"], ["y"])
    graph = model([node], {"x": [4]}, {"y": [4]}, {"c": np.array([2], np.int32)}, kinds=kinds)
    assert run(mlferry.convert(graph), x=np.array([-3, 3, -4, 5])).tolist() == [-1, 1, -2, 2]


def test_shape_arithmetic_vanishes() -> None:
    """What PyTorch writes for x.view(x.size(0), -1)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1])}
    converted = mlferry.convert(model(nodes, {"x": [2, 3, 4]}, {"y": None}, constants))
    kinds = [la.WhichOneof("layer") for la in converted.get_spec().neuralNetwork.layers]
    assert kinds == ["reshapeStatic"]
    assert run(converted, x=np.zeros((2, 3, 4))).shape == (2, 12)


def test_pixel_shuffle_written_with_six_axes(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "a"], ["p"]),
        helper.make_node("Transpose", ["p"], ["q"], perm=[0, 1, 4, 2, 5, 3]),
        helper.make_node("Reshape", ["q", "b"], ["y"]),
    ]
    constants = {"a": np.array([1, 2, 3, 3, 4, 5]), "b": np.array([1, 2, 12, 15])}
    x = rng.normal(size=(1, 18, 4, 5)).astype(np.float32)
    actual = run(mlferry.convert(model(nodes, {"x": [1, 18, 4, 5]}, {"y": None}, constants)), x=x)
    expected = x.reshape(1, 2, 3, 3, 4, 5).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 12, 15)
    np.testing.assert_array_equal(actual, expected)
    with pytest.raises(ConversionError, match="at most five"):
        mlferry.convert(model(nodes[:2], {"x": [1, 18, 4, 5]}, {"q": None}, constants))


# ---- trained quantization --------------------------------------------------------------


def quantized_model(op: str, codes: np.ndarray, scale: Any, zero: Any, axis: int) -> Any:
    nodes = [helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=axis)]
    shapes = {"Conv": [1, 3, 5, 5], "ConvTranspose": [1, 3, 5, 5]}
    nodes.append(helper.make_node(op, ["x", "w"], ["y"]))
    constants = {"q": codes, "s": np.asarray(scale, np.float32)}
    constants["z"] = np.asarray(zero, codes.dtype)
    return model(nodes, {"x": shapes.get(op, [2, 3])}, {"y": None}, constants, opset=21)


QUANTIZED: list[tuple[str, tuple[int, ...], str, int, bool]] = [
    ("Conv", (4, 3, 3, 3), "int8", 0, True),
    ("Conv", (4, 3, 3, 3), "uint8", 0, False),
    ("ConvTranspose", (3, 4, 3, 3), "int8", 1, True),
    ("MatMul", (3, 4), "int8", 1, True),
    ("MatMul", (3, 4), "uint8", 0, False),
    ("Gemm", (3, 4), "int8", 1, True),
]


@pytest.mark.parametrize(("op", "shape", "kind", "axis", "per_channel"), QUANTIZED)
def test_weights_stay_quantized(
    op: str, shape: tuple[int, ...], kind: str, axis: int, per_channel: bool,
    rng: np.random.Generator, library: Callable[[str], Any],
) -> None:  # fmt: skip
    least, most = (-128, 128) if kind == "int8" else (0, 256)
    codes = rng.integers(least, most, shape).astype(kind)
    size = shape[axis] if per_channel else ()
    scale, zero = rng.uniform(0.01, 0.1, size), rng.integers(0, 9, size)
    graph = quantized_model(op, codes, scale, zero, axis)
    converted = mlferry.convert(graph)
    network = converted.get_spec().neuralNetwork
    stored = [weights.encoding(w.message) for w in weights.iter_weights(network)]
    assert stored == [weights.Encoding("linear", 8)]
    shape_of = [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    x = rng.normal(size=shape_of).astype(np.float32)
    ort = library("onnxruntime")
    options = ort.SessionOptions()  # optimized, it also rounds the activations to 8 bits
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph.SerializeToString(), options)
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_allclose(run(converted, x=x), expected, rtol=1e-4, atol=1e-4)


def test_four_bit_weights(rng: np.random.Generator) -> None:
    codes = rng.integers(-8, 8, (3, 4))
    tensor = helper.make_tensor("q", TensorProto.INT4, [3, 4], codes.ravel().tolist())
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    scale = rng.uniform(0.1, 1, 4).astype(np.float32)
    graph = model(nodes, {"x": [2, 3]}, {"y": None}, {"s": scale}, opset=21)
    graph.graph.initializer.append(tensor)
    converted = mlferry.convert(graph)
    (weight,) = weights.iter_weights(converted.get_spec())
    assert weights.encoding(weight.message) == weights.Encoding("linear", 4)
    x = rng.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(run(converted, x=x), x @ (codes * scale), rtol=1e-5, atol=1e-5)


def test_quantized_activations_are_kept(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": np.array(0.25, np.float32), "z": np.array(10, np.uint8)}
    x = rng.normal(0, 30, (5, 5)).astype(np.float32)
    expected = (np.clip(np.rint(x / 0.25) + 10, 0, 255) - 10) * 0.25
    converted = mlferry.convert(model(nodes, {"x": [5, 5]}, {"y": [5, 5]}, constants))
    np.testing.assert_allclose(run(converted, x=x), expected, atol=1e-6)


# ---- images, classifiers, flexible shapes ----------------------------------------------


def network(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ]
    constants = {"w": rng.normal(0, 0.01, (4, 3, 3, 3)).astype(np.float32)}
    return model(nodes, {"image": ["n", 3, "h", "w"]}, {"y": None}, constants)


def test_an_image_with_a_scale_a_channel(rng: np.random.Generator) -> None:
    graph = network(rng)
    image = mlferry.ImageType(shape=(1, 3, 6, 5), scale=[0.1, 0.2, 0.3], bias=[1, 2, 3])
    config = mlferry.ClassifierConfig(["a", "b", "c", "d"])
    converted = mlferry.convert(graph, inputs=[image], classifier_config=config)
    pixels = rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
    actual = converted.predict({"image": pixels})
    x = (pixels * [0.1, 0.2, 0.3] + [1, 2, 3]).transpose(2, 0, 1)[None].astype(np.float32)
    plain = mlferry.convert(graph, inputs=[mlferry.TensorType(shape=(1, 3, 6, 5))])
    np.testing.assert_allclose(list(actual["y"].values()), run(plain, image=x)[0], atol=1e-6)
    assert actual["classLabel"] == "abcd"[int(run(plain, image=x).argmax())]


def test_an_image_of_a_channels_last_input(rng: np.random.Generator) -> None:
    """tf2onnx writes [N, H, W, C] with a transpose behind it."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["t"], ["y"]),
    ]
    graph = model(nodes, {"image": [1, 3, 3, 3]}, {"y": None})
    image = mlferry.ImageType(channel_first=False, scale=2.0)
    pixels = rng.integers(0, 256, (3, 3, 3)).astype(np.uint8)
    actual = run(mlferry.convert(graph, inputs=[image]), image=pixels)
    np.testing.assert_array_equal(actual, 2.0 * pixels.transpose(2, 0, 1).reshape(1, -1))


def test_the_classic_entry_point(rng: np.random.Generator) -> None:
    nodes = [helper.make_node("Flatten", ["image"], ["y"])]
    graph = model(nodes, {"image": [1, 3, 2, 2]}, {"y": [1, 12]})
    arguments = {"is_bgr": True, "blue_bias": -1.0, "image_scale": 2.0}
    converted = classic(graph, image_input_names=["image"], preprocessing_args=arguments)
    assert arguments  # the caller's dictionary stays as it is
    pixels = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    expected = pixels[..., ::-1].transpose(2, 0, 1) * 2.0 - np.array([1, 0, 0])[:, None, None]
    np.testing.assert_allclose(run(converted, image=pixels), expected.reshape(1, -1))
    for wrong in ({"mode": "regressor"}, {"minimum_ios_deployment_target": "new"},
                  {"image_input_names": ["img"]}, {"mode": "classifier"}):  # fmt: skip
        with pytest.raises(ConversionError):
            classic(graph, **wrong)


# ---- bad input -------------------------------------------------------------------------


def test_every_truncation() -> None:
    data = RELU.SerializeToString()
    for size in range(len(data)):
        try:
            mlferry.convert(data[:size])
        except MlferryError:
            continue


def external(location: str, **told: Any) -> onnx.ModelProto:
    graph = model([helper.make_node("Add", ["x", "c"], ["y"])], {"x": [2]}, {"y": [2]},
                  {"c": np.ones(2, np.float32)})  # fmt: skip
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **told}.items():
        tensor.external_data.add(key=key, value=str(value))
    return graph


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.ones(2, np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(np.array([0, 0, 5, 7], np.float32).tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    onnx.save(external("w.bin", offset=8, length=8), folder / "good.onnx")
    assert run(mlferry.convert(folder / "good.onnx"), x=np.zeros(2)).tolist() == [5, 7]
    bad = {
        "outside the model's folder": [
            external("../secret.bin"), external(str(tmp_path / "secret.bin")),
            external("link.bin"), external(""),
        ],
        "too short": [external("w.bin", offset=8, length=80), external("w.bin", offset=-4)],
        "cannot read": [external("missing.bin")],
        "do not fit its shape": [external("w.bin")],
    }  # fmt: skip
    for message, graphs in bad.items():
        for graph in graphs:
            (folder / "bad.onnx").write_bytes(graph.SerializeToString())
            with pytest.raises(ModelFileError, match=message):
                mlferry.convert(folder / "bad.onnx")
    with pytest.raises(ModelFileError, match="give the model's path"):
        mlferry.convert(external("w.bin"))


def broken() -> dict[str, tuple[onnx.ModelProto, str]]:
    def node(*names: Any, op: str = "Relu") -> Any:
        return helper.make_node(op, list(names[:-1]), [names[-1]])

    newer = model([node("x", "y")], {"x": [1]}, {"y": [1]})
    newer.opset_import[0].version = 999
    wrong = model([node("x", "c", "y", op="Add")], {"x": [2]}, {"y": [2]},
                  {"c": np.ones(2, np.float32)})  # fmt: skip
    wrong.graph.initializer[0].dims[0] = 7
    return {
        "cycle": (model([node("b", "a"), node("a", "b")], {"x": [1]}, {"a": [1]}), "each other"),
        "undefined": (model([node("z", "y")], {"x": [1]}, {"y": [1]}), "nothing makes"),
        "no output": (model([node("x", "y")], {"x": [1]}, {"q": [1]}), "nothing makes the output"),
        "opset": (newer, "knows opsets up to"),
        "bytes": (wrong, "do not fit its shape"),
    }


@pytest.mark.parametrize("name", list(broken()))
def test_broken_models(name: str) -> None:
    graph, message = broken()[name]
    with pytest.raises(MlferryError, match=message):
        mlferry.convert(graph)


def test_an_attribute_that_is_not_carried_over() -> None:
    graph = model([helper.make_node("Relu", ["x"], ["y"], sharpen=3)], {"x": [1]}, {"y": [1]})
    with pytest.raises(ConversionError, match="cannot carry over: sharpen=3"):
        mlferry.convert(graph)


def resized(size: int, out: int, **options: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="nearest", **options)], "g",
        [helper.make_tensor_value_info("x", 1, [1, 1, 1, size])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.array([1, 1, 1, out]), "s")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor"])
def test_nearest_entries_are_those_of_onnxruntime(transform: str, rounding: str) -> None:
    """Where a position lies between two entries, or on one, the rounding of float32 decides."""
    onnxruntime = pytest.importorskip("onnxruntime")
    for size in (5, 7, 10, 11):
        x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
        for out in (1, 6, 9, 13, 17, 22):
            options = {"coordinate_transformation_mode": transform, "nearest_mode": rounding}
            proto = resized(size, out, **options)
            (expected,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(
                None, {"x": x}
            )
            actual = mlferry.convert(proto).predict({"x": x})["y"]
            np.testing.assert_array_equal(actual, expected, err_msg=f"{size} to {out}")


def test_a_transposed_convolution_that_runtimes_compute_differently() -> None:
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2])],
        "g", [helper.make_tensor_value_info("x", 1, [1, 1, 3])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ConversionError, match=r"runtimes differ.*give output_shape"):
        mlferry.convert(proto)


# ---- what is free, dead or fixed -------------------------------------------------------


@pytest.mark.parametrize("extent", [-1, 0])
def test_extents_that_mean_a_free_axis(extent: int) -> None:
    """Older exporters of PaddlePaddle write -1, others 0."""
    network = model([helper.make_node("Relu", ["x"], ["y"])], {"x": [extent, 3]}, {"y": None})
    for inputs, count in (
        (None, 1),
        ([mlferry.TensorType("x", shape=(2, 3))], 2),
        ([mlferry.TensorType("x", shape=(mlferry.RangeDim(1, 4), 3))], 3),
    ):
        converted = mlferry.convert(network, inputs=inputs)
        assert run(converted, x=np.ones((count, 3), np.float32)).shape == (count, 3)


def test_nodes_that_no_output_needs_are_no_reason_to_refuse() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Debug", ["y"], ["shown"]),
        helper.make_node("Print", ["shown"], []),
        helper.make_node("Loop", ["", "", "y"], ["z"], body=helper.make_graph([], "b", [], [])),
    ]
    converted = mlferry.convert(model(nodes, {"x": [1, 3]}, {"y": [1, 3]}))
    assert [layer.name for layer in converted.get_spec().neuralNetwork.layers] == ["y"]


def branches() -> onnx.ModelProto:
    """A condition chooses between two networks, one of which does not take the input."""

    def branch(name: str, shape: str, op: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Reshape", ["x", shape], [f"{name}0"]),
            helper.make_node(op, [f"{name}0"], [name]),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(name)])

    nodes = [
        helper.make_node("Equal", ["rate", "k"], ["c"]),
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("a", "s1", "Relu"),
            else_branch=branch("b", "s2", "Abs"),
        ),
    ]  # fmt: skip
    constants = {"k": np.array(16000), "s1": np.array([1, 8]), "s2": np.array([1, 5])}
    kinds = {"rate": TensorProto.INT64}
    return model(nodes, {"x": [1, 8], "rate": []}, {"y": None}, constants, kinds=kinds)


@pytest.mark.parametrize("sample", [16000, np.int64(16000), np.array(16000)])
def test_an_input_that_has_one_value_for_good(sample: Any) -> None:
    inputs = [mlferry.TensorType("x"), mlferry.TensorType("rate", value=sample)]
    converted = mlferry.convert(branches(), inputs=inputs)
    assert [feature.name for feature in converted.get_spec().description.input] == ["x"]
    x = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    np.testing.assert_array_equal(run(converted, x=x), np.maximum(x, 0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 2)), r"value of shape \(2, 2\) for input 'rate'"),
        ("fast", "of input 'rate'"),
    ],
)
def test_values_that_do_not_fit(value: Any, message: str) -> None:
    inputs = [mlferry.TensorType("x"), mlferry.TensorType("rate", value=value)]
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(branches(), inputs=inputs)
