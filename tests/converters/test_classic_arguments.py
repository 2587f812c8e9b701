"""Arguments of coremltools 2 to 5 and tfcoreml that scripts write, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError, RegistrationError
from mlferry.spec import weights
from mlferry.spec.proto import features_pb2 as ft

Library = Callable[[str], Any]


@pytest.fixture(scope="module")
def net(library: Library) -> Any:
    keras = library("keras")
    inputs = keras.layers.Input((4,), name="input_1")
    first = keras.layers.Dense(2, name="first")(inputs)
    second = keras.layers.Dense(3, name="second")(inputs)
    return keras.Model(inputs, [first, second])


def converted(net: Any, **arguments: Any) -> mlferry.MLModel:
    names = {"input_names": "x", "output_names": ["a", "b"]}
    return mlferry.converters.keras.convert(net, **names, **arguments)


def array_types(model: mlferry.MLModel) -> set[int]:
    description = model.spec.description
    return {f.type.multiArrayType.dataType for f in (*description.input, *description.output)}


def test_keras(net: Any) -> None:
    x = np.ones((1, 4), np.float32)
    expected = np.asarray(net(x)[0])
    for arguments in (
        {"model_precision": "float32"},
        {"use_float_arraytype": True},
        {"custom_objects": {}},
        {"input_shapes": [(None, 4)]},
        {"output_shapes": [(None, 2), (None, 3)]},
    ):
        np.testing.assert_allclose(converted(net, **arguments).predict({"x": x})["a"], expected,
                                   rtol=1e-6)  # fmt: skip
    half = converted(net, model_precision="float16")
    stored = {weights.encoding(w.message) for w in weights.iter_weights(half.spec)}
    assert stored == {weights.Encoding(weights.FLOAT16, 16)}
    assert array_types(converted(net)) == {ft.ArrayFeatureType.FLOAT32}
    doubles = converted(net, use_float_arraytype=False)
    assert array_types(doubles) == {ft.ArrayFeatureType.DOUBLE}
    assert doubles.predict({"x": x})["a"].dtype == np.float64


def test_shapes_in_order_of_inputs(library: Library) -> None:
    keras = library("keras")
    inputs = keras.layers.Input((None, 5))
    net = keras.Model(inputs, keras.layers.Conv1D(2, 3)(inputs))
    model = mlferry.converters.keras.convert(net, input_shapes=[(None, 7, 5)])
    assert list(model.spec.description.input[0].type.multiArrayType.shape) == [1, 7, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_precision": "quantized_model"}, r"quantize_weights\(model, 8\)"),
        ({"model_precision": "float16", "respect_trainable": True}, "half precision"),
        ({"convert_to": "milinternal"}, "possible are 'neuralnetwork'"),
        ({"compute_precision": mlferry.precision.FLOAT16}, r"quantize_weights\(model, 16\)"),
        ({"source": "pytorch"}, r"torch\.onnx\.export"),
        ({"source": "onnx"}, "leave source out"),
        ({"minimum_deployment_target": mlferry.target.iOS12}, "newer than iOS12"),
    ],
)
def test_refused(net: Any, arguments: dict[str, Any], message: str) -> None:
    classic = "model_precision" in arguments
    with pytest.raises(ConversionError, match=message):
        converted(net, **arguments) if classic else mlferry.convert(net, **arguments)


def test_the_first_parameter_has_a_name(net: Any) -> None:
    x = np.ones((1, 4), np.float32)
    for result in (
        mlferry.convert(model=net, source="tensorflow"),
        mlferry.convert(net, "keras", minimum_deployment_target=mlferry.target.macOS10_15),
        mlferry.convert(net, convert_to="neuralnetwork", compute_units=mlferry.ComputeUnit.ALL,
                        compute_precision=mlferry.precision.FLOAT32, skip_model_load=True),
    ):  # fmt: skip
        np.testing.assert_allclose(result.predict({"input_1": x}, True)["first"], net(x)[0],
                                   rtol=1e-6)  # fmt: skip


def test_enumerations_are_those_of_coremltools() -> None:
    ct = pytest.importorskip("coremltools")
    for name, member in ct.target.__members__.items():
        assert mlferry.target[name] == member.value
    assert [(u.name, u.value) for u in mlferry.ComputeUnit] == [
        (u.name, u.value) for u in ct.ComputeUnit
    ]
    assert [(p.name, p.value) for p in mlferry.precision] == [
        (p.name, p.value) for p in ct.precision
    ]
    assert [c.name for c in mlferry.colorlayout] == [c.name for c in ct.colorlayout]


@pytest.mark.parametrize("layout", ["GRAYSCALE", "G", mlferry.colorlayout.GRAYSCALE])
def test_color_layouts(layout: str) -> None:
    assert mlferry.ImageType(color_layout=layout).color_layout == "GRAYSCALE"


def test_shapes_and_types() -> None:
    varying = mlferry.RangeDim(2, 8, symbol="n")
    assert mlferry.Shape((1, varying)) == (1, varying)
    assert mlferry.Shape((1, varying), default=(1, 4))[1].default == 4
    for default in ((1,), (2, 4), (1, 9)):
        with pytest.raises(ConversionError, match=r"default"):
            mlferry.Shape((1, varying), default=default)
    assert mlferry.TensorType(dtype=np.float64).dtype == "float64"
    with pytest.raises(ConversionError, match="float32"):
        mlferry.TensorType(dtype=np.complex64)


# ---- ONNX and TensorFlow ------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture_net(library: Library) -> Any:
    """An ONNX network that doubles an image."""
    onnx = library("onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "image"], ["twice"])], "net",
        [value("image", number, [1, 3, 4, 5])], [value("twice", number, [1, 3, 4, 5])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ({}, False),
        ({"minimum_ios_deployment_target": "13"}, False),
        ({"minimum_ios_deployment_target": "12"}, True),
        ({"minimum_ios_deployment_target": "11.2"}, True),
        ({"target_ios": "12"}, True),
        ({"target_ios": "14"}, False),
    ],
)
def test_onnx_targets(
    picture_net: Any, arguments: Any, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = mlferry.converters.onnx.convert(
            picture_net, image_input_names="image", image_output_names="twice", **arguments
        )
    assert [("exact array mapping" in text) for text in caplog.messages] == [True] * warned
    assert model.spec.specificationVersion == 4
    kinds = [f.type.WhichOneof("Type") for f in (*model.spec.description.input,
                                                 *model.spec.description.output)]  # fmt: skip
    assert kinds == ["imageType", "imageType"]


def test_no_target(picture_net: Any) -> None:
    with pytest.raises(ConversionError, match="a release of iOS, such as '13'"):
        mlferry.converters.onnx.convert(picture_net, minimum_ios_deployment_target="new")


@pytest.fixture(scope="module")
def frozen(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with odd names, and their sum."""
    tf = library("tensorflow")
    with tf.Graph().as_default() as graph:
        one = tf.compat.v1.placeholder(tf.float32, [1, 2, 3, 3], name="net/one__x")
        other = tf.compat.v1.placeholder(tf.float32, [1, 2, 3, 3], name="other")
        tf.add(one, 2 * other, name="net/sum")
    path = tmp_path_factory.mktemp("frozen") / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.parametrize(
    "names",
    [["net/one__x:0", "other:0"], ["net/one__x", "other"], ["net/one__x:0", "other__0"]],
)
def test_names_of_tensors(frozen: Path, names: list[str]) -> None:
    model = mlferry.converters.tensorflow.convert(
        frozen, output_feature_names="net/sum:0", image_input_names=names,
        image_scale={names[0]: 0.5}, red_bias={names[1]: 3.0},
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 3)).astype(np.uint8)
    actual = model.predict({"net__one__x__0": pixels[0], "other__0": pixels[1]})["net__sum__0"]
    expected = pixels[0] * 0.5 + 2 * (pixels[1] + np.array([3.0, 0, 0]))
    np.testing.assert_allclose(np.ravel(actual), expected.ravel(), rtol=1e-6)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_keras_file(net: Any, tmp_path: Path, suffix: str) -> None:
    net.save(tmp_path / f"net.{suffix}")
    path = str(tmp_path / f"net.{suffix}")
    x = np.ones((1, 4), np.float32)
    for names, shown in (
        (None, ["first", "second"]),
        (["Identity", "Identity_1"], ["Identity", "Identity_1"]),
        (["first/BiasAdd:0", "second/BiasAdd:0"], ["first__BiasAdd", "second__BiasAdd"]),
        (["second"], ["first", "second"]),
    ):
        actual = mlferry.converters.tensorflow.convert(
            path, output_feature_names=names, mlmodel_path=tmp_path / "m.mlmodel",
            input_name_shape_dict={"input_1:0": [1, 4]},
        ).predict({"input_1": x})  # fmt: skip
        assert list(actual) == shown
        for result, expected in zip(actual.values(), net(x), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert (tmp_path / "m.mlmodel").exists()
    with pytest.raises(ConversionError, match="has no output 'third'"):
        mlferry.converters.tensorflow.convert(path, output_feature_names=["third"])


def test_models_take_what_scripts_write(net: Any, tmp_path: Path) -> None:
    path = mlferry.convert(net).save(tmp_path / "m.mlmodel")
    x = np.ones(4, np.float32)
    for arguments in (
        {"useCPUOnly": True},
        {"skip_model_load": True, "compute_units": mlferry.ComputeUnit.CPU_ONLY},
    ):
        actual = mlferry.MLModel(path, **arguments).predict({"input_1": x}, useCPUOnly=True)
        np.testing.assert_allclose(actual["first"], net(x[None])[0], rtol=1e-6)
    with pytest.raises(RegistrationError):
        mlferry.MLModel(path, images="pillow")
