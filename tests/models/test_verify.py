"""A source and a Core ML model side by side: agreement, and each way to differ."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.cli import main
from mlferry.errors import MissingDependencyError, ModelFileError, PredictionError
from mlferry.layers.builder import Builder
from mlferry.spec import networks

Library = Callable[[str], Any]


def onnx_file(folder: Path, *, length: int | str = 6) -> Path:
    """Two inputs, a convolution, two outputs of which one is small."""
    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.normal(size=(4, 3, 1, 3)).astype(np.float32), "w")
    small = numpy_helper.from_array(np.float32(1e-9), "small")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[0, 1, 0, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Add", ["r", "y"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["s"]),
            helper.make_node("Mul", ["s", "small"], ["tiny"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, length]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 1, 1]),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("tiny", TensorProto.FLOAT, None),
        ],
        [weight, small],
    )
    path = folder / "net.onnx"
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    )
    assert onnx.load(path).graph.name == "g"
    return path


def changed(model: mlferry.MLModel, layer: str, factor: float) -> mlferry.MLModel:
    """The model with other weights in a convolution or inner product."""
    spec = model.get_spec()
    network = networks.network_of(spec)
    assert network is not None
    (matches,) = [each for each in network.layers if each.name == layer]
    weights = getattr(matches, matches.WhichOneof("layer")).weights.floatValue
    weights[:] = [weight * factor for weight in weights]
    return mlferry.MLModel(spec)


def test_onnx(tmp_path: Path) -> None:
    path = onnx_file(tmp_path)
    model = mlferry.convert(path)
    assert mlferry.verify(path, model)
    program = mlferry.convert(path, convert_to="mlprogram")
    actual = mlferry.verify(path, program)
    assert actual
    assert actual.tolerance == 0.02
    (conv,) = [name for name, (_, kind) in model.makers().items() if kind == "convolution"]
    wrong = mlferry.verify(path, changed(model, model.makers()[conv][0], 1.01))
    assert not wrong
    assert {row.output for row in wrong.wrong} == {"sum"}  # the other is too small to differ
    assert wrong.first is not None
    assert wrong.first.blob == conv == "c"
    assert wrong.first.relative == pytest.approx(0.01, rel=1e-3)
    assert "'c'" in str(wrong)
    assert json.dumps(wrong.to_dict())
    assert mlferry.verify(path, changed(model, model.makers()[conv][0], 1.01), tolerance=0.02)


def test_sizes_that_vary(tmp_path: Path) -> None:
    path = onnx_file(tmp_path, length="n")
    shape = (1, 3, 5, mlferry.RangeDim(2, 100, 7))
    inputs = [mlferry.TensorType("x", shape=shape)]
    actual = mlferry.verify(path, mlferry.convert(path, inputs=inputs), count=1)
    assert actual
    assert actual.sizes["x"] == [(1, 3, 5, 7), (1, 3, 5, 2), (1, 3, 5, 14)]
    assert "tried with (1, 3, 5, 7), (1, 3, 5, 2), (1, 3, 5, 14)" in str(actual)


def test_integers_of_the_source(library: Library, tmp_path: Path) -> None:
    """Tokens stay whole, whatever the Core ML model calls their type."""
    keras = library("keras")
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 4)(tokens))
    path = tmp_path / "words.keras"
    keras.Model(tokens, x).save(path)
    model = mlferry.convert(path)
    spec = model.get_spec()
    spec.description.input[0].type.multiArrayType.dataType = 65568  # float32
    for each in (model, mlferry.MLModel(spec), mlferry.convert(path, convert_to="mlprogram")):
        assert mlferry.verify(path, each)


def keras_file(library: Library, path: Path) -> Path:
    keras = library("keras")
    layers = keras.layers
    keras.utils.set_random_seed(3)
    picture = keras.Input((8, 8, 3), name="picture")
    shared = layers.Conv2D(3, 3, padding="same", activation="relu", name="shared")
    x = layers.Conv2D(4, 3, activation="relu", name="features")(shared(shared(picture)))
    x = layers.Dense(5, activation="softmax", name="classes")(layers.Flatten(name="flat")(x))
    keras.Model(picture, x).save(path)
    return path


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_keras(library: Library, tmp_path: Path, suffix: str) -> None:
    path = keras_file(library, tmp_path / f"net{suffix}")
    model = mlferry.convert(path)
    assert mlferry.verify(path, model)
    layer = next(name for name, kind in model.makers().values() if name.startswith("features"))
    wrong = mlferry.verify(path, changed(model, layer, 1.05), count=1)
    assert wrong.first is not None
    assert wrong.first.blob.startswith("features")  # behind its activation, in another layout
    images = mlferry.convert(path, inputs=[mlferry.ImageType(scale=1 / 255, bias=[-0.5, 0, 0.5])])
    assert mlferry.verify(path, images)
    labels = mlferry.ClassifierConfig([*"abcde"])
    classifier = mlferry.convert(path, classifier_config=labels)
    assert mlferry.verify(path, classifier)


def test_images_of_programs_are_prepared_by_the_user(library: Library, tmp_path: Path) -> None:
    path = keras_file(library, tmp_path / "net.keras")
    image = mlferry.ImageType(scale=1 / 255)
    program = mlferry.convert(path, inputs=[image], convert_to="mlprogram")
    with pytest.raises(PredictionError, match="prepare=function"):
        mlferry.verify(path, program)

    def prepare(sample: Any) -> dict[str, np.ndarray]:
        (pixels,) = sample.values()
        return {"picture": np.asarray(pixels, np.float32)[None] / 255}

    assert mlferry.verify(path, program, prepare=prepare)


def test_a_saved_model(library: Library, tmp_path: Path) -> None:
    keras = library("keras")
    path = keras_file(library, tmp_path / "net.keras")
    keras.saving.load_model(path).export(tmp_path / "saved", verbose=False)
    assert mlferry.verify(tmp_path / "saved", mlferry.convert(path))


BAD: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "missing": (lambda folder: folder / "none.onnx", ModelFileError, "there is no file"),
    "another kind": (lambda folder: _written(folder / "net.pt"), ModelFileError, "possible are"),
    "damaged": (lambda folder: _written(folder / "bad.onnx"), ModelFileError, "cannot be run"),
    "other inputs": (onnx_file, PredictionError, "cannot be paired"),
}


def _written(path: Path) -> Path:
    path.write_bytes(b"nothing of the kind")
    return path


@pytest.mark.parametrize("name", BAD)
def test_sources_that_cannot_be_run(name: str, tmp_path: Path) -> None:
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        mlferry.verify(make(tmp_path), _relu())


def test_a_folder_that_is_no_saved_model(library: Library, tmp_path: Path) -> None:
    library("tensorflow")
    with pytest.raises(ModelFileError, match="cannot be run"):
        mlferry.verify(tmp_path, _relu())


def _relu() -> mlferry.MLModel:
    builder = Builder()
    builder.input("a", (1, 3))
    builder.layer("activation", "relu", ["a"], ["b"], ReLU={})
    builder.output("b")
    return mlferry.MLModel(builder.model())


def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install 'mlferry\\[onnxruntime\\]'"):
        mlferry.verify(onnx_file(tmp_path), _relu())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = onnx_file(tmp_path)
    model = mlferry.convert(path)
    right, wrong = tmp_path / "right.mlmodel", tmp_path / "wrong.mlmodel"
    model.save(right)
    changed(model, model.makers()["c"][0], 2).save(wrong)
    assert main(["verify", str(path), str(right)]) == 0
    assert "gives what its source gives" in capsys.readouterr().out
    assert main(["verify", str(path), str(wrong), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["first_difference"]["blob"] == "c"
    samples = tmp_path / "samples"
    samples.mkdir()
    np.savez(samples / "zero.npz", x=np.zeros((1, 3, 5, 6), "f"), y=np.ones((1, 4, 1, 1), "f"))
    assert main(["verify", str(path), str(wrong), "--samples", str(samples)]) == 0
