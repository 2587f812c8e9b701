"""`MLModel`: what it loads, what it says, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import (
    CustomLayerError,
    MissingCustomLayerError,
    ModelFileError,
    PredictionError,
    UnsupportedModelError,
    ValidationError,
)
from mlferry.layers.builder import Builder
from mlferry.runtime.session import Session
from mlferry.spec import features, fields
from mlferry.spec.proto import model_pb2


def relu() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
    builder.output("y")
    return builder.model()


def custom(*names: str, **parameters: Any) -> model_pb2.Model:
    """A chain of custom layers of one input and one output."""
    builder = Builder()
    builder.input("x", (1, 3))
    blob = "x"
    for name in names:
        result = f"{name}_out"
        fields = {key: {"doubleValue": value} for key, value in parameters.items()}
        builder.layer(
            "custom", name, [blob], [result], className=name, description=f"does {name}",
            parameters=fields, output_shapes=[(1, 3)],
        )  # fmt: skip
        blob = result
    builder.output(blob)
    return builder.model()


def test_load_save_and_bytes(tmp_path: Path) -> None:
    model = mlferry.MLModel(relu())
    path = model.save(tmp_path / "m")
    assert path.name == "m.mlmodel"
    for source in (path, str(path), path.read_bytes(), model.get_spec()):
        actual = mlferry.MLModel(source).predict({"x": [[-1, 0, 2]]})
        np.testing.assert_array_equal(actual["y"], [[0, 0, 2]])


def test_a_message_of_coremltools(library: Any) -> None:
    library("coremltools")
    theirs = library("coremltools.proto.Model_pb2").Model.FromString(relu().SerializeToString())
    assert mlferry.MLModel(theirs).predict({"x": np.ones((1, 3))})["y"].shape == (1, 3)


def test_a_batch_is_a_list() -> None:
    model = mlferry.MLModel(relu())
    actual = model.predict([{"x": np.full((1, 3), value)} for value in (-1, 2)])
    assert [sample["y"].max() for sample in actual] == [0, 2]


def test_an_iterator_streams() -> None:
    """One sample at a time is asked for, and only when its result is."""
    asked = []

    def samples() -> Iterator[dict[str, Any]]:
        for value in range(1000):
            asked.append(value)
            yield {"x": np.full((1, 3), value, np.float32)}

    model = mlferry.MLModel(relu())
    results = model.predict(samples())
    assert asked == []
    assert next(results)["y"].tolist() == [[0, 0, 0]]
    assert next(results)["y"].tolist() == [[1, 1, 1]]
    assert asked == [0, 1]


def classic(layers: list[tuple[str, dict[str, Any]]]) -> model_pb2.Model:
    """A chain in the mapping to five axes."""
    spec = model_pb2.Model(specificationVersion=1)
    spec.description.input.add(name="x").type.multiArrayType.shape.append(4)
    spec.description.input[0].type.multiArrayType.dataType = 65568
    for index, (kind, params) in enumerate(layers):
        layer = spec.neuralNetwork.layers.add(
            name=f"l{index}", input=["x" if not index else f"y{index - 1}"], output=[f"y{index}"]
        )
        getattr(layer, kind).SetInParent()
        fields.fill(getattr(layer, kind), params)
    spec.description.output.add(name=f"y{len(layers) - 1}").type.multiArrayType.dataType = 65568
    return spec


DENSE = {"inputChannels": 4, "outputChannels": 3, "weights": np.arange(12.0).reshape(3, 4)}
CHAINS: dict[str, tuple[list[tuple[str, dict[str, Any]]], bool]] = {
    "dense": ([("innerProduct", DENSE), ("softmax", {})], True),
    "statistics of the batch": (
        [("batchnorm", {
            "channels": 4, "computeMeanVar": True, "gamma": np.ones(4), "beta": np.zeros(4),
        })],
        False,
    ),
    "custom": ([("custom", {"className": "Side"})], False),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_samples_of_classic_networks_go_side_by_side(name: str) -> None:
    """Sixteen at a time where no layer looks at several; results are those one by one."""

    class Side(mlferry.CustomLayer):
        def evaluate(self, inputs: list[Any]) -> list[Any]:
            assert inputs[0].shape == (1, 1, 4, 1, 1)
            return [inputs[0] + 1]

    layers, joins = CHAINS[name]
    model = mlferry.MLModel(classic(layers), custom_layers={"Side": Side})
    assert model._network().joins is joins
    samples = [{"x": np.arange(4) * 0.1 + index} for index in range(40)]
    output = f"y{len(layers) - 1}"
    expected = [model.predict(sample)[output] for sample in samples]
    asked = []
    run = model.session.run
    model.session.run = lambda *arguments: asked.append(arguments) or run(*arguments)  # type: ignore[method-assign]
    for result in (model.predict(samples), list(model.predict(iter(samples)))):
        matches = [one[output] for one in result]
        np.testing.assert_allclose(matches, expected, rtol=1e-5, atol=1e-6)
        assert matches[0].shape == expected[0].shape
    assert len(asked) == (6 if joins else 80)
    samples[20] = {"x": np.zeros(5)}
    results = model.predict(iter(samples))
    assert len([next(results) for _ in range(20)]) == 20
    with pytest.raises(PredictionError):
        next(results)


def test_a_folder_of_pictures_streams(tmp_path: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    builder = Builder()
    builder.input("x", (1, 3, 4, 5), features.image(5, 4, "RGB"))
    builder.layer("activation", "twice", ["x"], ["y"], linear={"alpha": 2.0})
    builder.output("y")
    model = mlferry.MLModel(builder.model())
    pixels = rng.integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    actual = [result["y"] for result in model.predict(tmp_path)]
    np.testing.assert_array_equal(np.concatenate(actual), 2.0 * pixels.transpose(0, 3, 1, 2))


def test_get_spec_is_a_copy() -> None:
    model = mlferry.MLModel(relu())
    model.get_spec().description.input[0].name = "changed"
    assert model.get_spec().description.input[0].name == "x"


@pytest.mark.parametrize("name", ["short_description", "author", "license", "version"])
def test_metadata(name: str, tmp_path: Path) -> None:
    model = mlferry.MLModel(relu())
    setattr(model, name, "words")
    assert getattr(mlferry.MLModel(model.save(tmp_path / "m.mlmodel")), name) == "words"
    assert "words" in repr(model)


def test_descriptions_of_features() -> None:
    model = mlferry.MLModel(relu())
    model.input_description["x"] = "three numbers"
    model.user_defined_metadata["key"] = "value"
    assert dict(model.input_description) == {"x": "three numbers"}
    assert list(model.output_description) == ["y"]
    assert "three numbers" in repr(model)
    with pytest.raises(KeyError, match="No feature with name z"):
        model.input_description["z"] = ""


def test_the_summary_tells_what_xcode_would() -> None:
    text = repr(mlferry.MLModel(custom("Swish", beta=0.5)))
    for part in ("iOS 13", "x: multi-array float32 1 x 3", "custom layer Swish", "does Swish",
                 "parameter beta: 0.5", "neuralNetwork"):  # fmt: skip
        assert part in text


WRONG_INPUTS: list[tuple[Any, str]] = [
    ({"X": [[1, 2, 3]]}, "no input 'X'. Did you mean 'x'"),
    ({}, "no value for input 'x'"),
    ({"x": [[1, 2]]}, r"1 x 3, not shape \(1, 2\)"),
    ({"x": np.ones((4, 3))}, "list of dicts"),
    ({"x": np.ones(4)}, r"1 x 3, not shape \(4,\)"),
    ({"x": "text"}, "takes numbers"),
    ({"x": [[1, 2], [3]]}, "rectangular"),
    (np.ones((1, 3)), "takes a dict"),
    ([np.ones((1, 3))], "takes a dict"),
]


@pytest.mark.parametrize("index", range(len(WRONG_INPUTS)))
def test_wrong_inputs(index: int) -> None:
    data, message = WRONG_INPUTS[index]
    with pytest.raises(PredictionError, match=message):
        mlferry.MLModel(relu()).predict(data)


def test_all_missing_classes_are_named_with_lines_that_work() -> None:
    model = mlferry.MLModel(custom("Twist", "Turn", angle=0.5))
    with pytest.raises(MissingCustomLayerError) as caught:
        model.predict({"x": np.ones((1, 3))})
    assert caught.value.class_names == ["Twist", "Turn"]
    text = str(caught.value)
    for part in ("does Twist", "angle=0.5", "@mlferry.register_custom_layer('Turn')"):
        assert part in text
    skeleton = text[text.index("@mlferry") :].replace("...", "outputs = inputs  #")
    from mlferry.custom import CUSTOM_LAYERS

    exec(skeleton, {"mlferry": mlferry})
    try:
        assert model.predict({"x": np.ones((1, 3))})["Turn_out"].tolist() == [[1, 1, 1]]
    finally:
        for name in ("Twist", "Turn"):
            del CUSTOM_LAYERS._entries[name]


def test_classes_of_the_model_come_before_registered_ones() -> None:
    class Doubled(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            return [inputs[0] * 2]

    class Halved(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            return [inputs[0] / 2]

    mlferry.register_custom_layer("Both")(Doubled)
    mlferry.register_custom_layer("Both")(Doubled)  # a notebook cell is run twice
    spec = custom("Both")
    assert mlferry.MLModel(spec).predict({"x": np.ones((1, 3))})["Both_out"][0, 0] == 2
    model = mlferry.MLModel(spec, custom_layers={"Both": Halved})
    assert model.predict({"x": np.ones((1, 3))})["Both_out"][0, 0] == 0.5


BROKEN_CLASSES: list[tuple[dict[str, Any], str]] = [
    ({"evaluate": lambda self, inputs: [inputs[0][:, :2]]}, r"promised \(1, 3\)"),
    ({"evaluate": lambda self, inputs: inputs[0]}, "returns a list"),
    ({"evaluate": lambda self, inputs: []}, "0 arrays for 1 outputs"),
    ({"evaluate": lambda self, inputs: 1 / 0}, "evaluate raised ZeroDivisionError"),
    ({"output_shapes": lambda self, shapes: 3}, "output_shapes returns one shape for each output"),
    ({"output_shapes": lambda self, shapes: []}, "returned 0 shapes"),
    ({"__init__": lambda self, parameters: parameters["nothing"]}, "__init__ raised KeyError"),
    ({}, "evaluate is not written yet"),
]


@pytest.mark.parametrize("index", range(len(BROKEN_CLASSES)))
def test_broken_classes(index: int) -> None:
    methods, message = BROKEN_CLASSES[index]
    cls = type("Broken", (mlferry.CustomLayer,), methods)
    model = mlferry.MLModel(custom("Broken"), custom_layers={"Broken": cls})
    with pytest.raises(CustomLayerError, match=message):
        model.predict({"x": np.ones((1, 3))})


def test_a_kind_that_cannot_predict_loads_and_saves(tmp_path: Path) -> None:
    spec = model_pb2.Model(specificationVersion=3)
    spec.bayesianProbitRegressor.numberOfFeatures = 1
    feature = spec.description.input.add(name="x")
    feature.type.doubleType.SetInParent()
    output = spec.description.output.add(name="y")
    output.type.doubleType.SetInParent()
    spec.description.predictedFeatureName = "y"
    model = mlferry.MLModel(spec)
    saved = mlferry.MLModel(model.save(tmp_path / "m.mlmodel"))
    assert saved.get_spec() == spec
    with pytest.raises(UnsupportedModelError, match="bayesianProbitRegressor"):
        saved.predict({"x": 1.0})


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"mlferry\.convert takes"):
        mlferry.MLModel(3)  # type: ignore[arg-type]
    (tmp_path / "m.mlmodel").write_bytes(relu().SerializeToString()[:-20])
    with pytest.raises((ModelFileError, ValidationError)):
        mlferry.MLModel(tmp_path / "m.mlmodel")


def test_a_broken_model_is_not_written(tmp_path: Path) -> None:
    model = mlferry.MLModel(relu())
    model._spec.neuralNetwork.layers[0].input[0] = "nowhere"
    with pytest.raises(ValidationError, match="nowhere"):
        model.save(tmp_path / "m.mlmodel")
    assert not list(tmp_path.iterdir())


def test_a_program_that_was_broken_is_not_written(tmp_path: Path) -> None:
    model = mlferry.to_program(mlferry.MLModel(relu()))
    model.save(tmp_path / "whole.mlpackage")
    (function,) = model._spec.mlProgram.functions.values()
    block = function.block_specializations[function.opset]
    operation = next(each for each in block.operations if each.type == "relu")
    operation.inputs["x"].arguments[0].name = "nowhere"
    with pytest.raises(ValidationError, match="nowhere"):
        model.save(tmp_path / "broken.mlpackage")
    assert [path.name for path in tmp_path.iterdir()] == ["whole.mlpackage"]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("winograd", [True, False])
def test_tiles_of_winograd_can_be_left_out(winograd: bool, compiled: bool) -> None:
    """They round more: without them the result is the plain sum."""
    if compiled:
        pytest.importorskip("numba", reason="Numba is not installed")
    builder = Builder()
    builder.input("x", (1, 48, 24, 24))
    rng = np.random.default_rng(0)
    builder.layer(
        "convolution", "conv", ["x"], ["y"], outputChannels=48, kernelChannels=48, nGroups=1,
        kernelSize=(3, 3), stride=(1, 1), same={}, weights=rng.normal(0, 1, (48, 48, 3, 3)),
    )  # fmt: skip
    builder.output("y")
    x = rng.normal(0, 1, (1, 48, 24, 24)).astype(np.float32)
    model = mlferry.MLModel(builder.model(), winograd=winograd, compiled=compiled)
    y = model.predict({"x": x})["y"]
    session = Session(builder.network, winograd=False, compiled=compiled)
    without = session.run({"x": x}, ["y"])["y"]
    assert np.array_equal(y, without) is not winograd
    assert np.abs(y - without).max() < 3e-6 * np.ptp(without)


VIEWS: dict[str, tuple[str, dict[str, Any]]] = {
    "of the same shape": ("activation", {"linear": {"alpha": 1.0}}),
    "reshaped": ("reshapeStatic", {"targetShape": (3, 2)}),
    "transposed": ("transpose", {"axes": (1, 0)}),
    "sliced": ("sliceStatic", {
        "beginIds": (0, 0), "endIds": (1, 3), "strides": (1, 1),
        "beginMasks": (False, False), "endMasks": (False, False), "squeezeMasks": (False, False),
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_results_share_no_memory_with_inputs(name: str) -> None:
    """An array of float32 is taken as it is, but the caller may change it, and the results."""
    kind, fields = VIEWS[name]
    builder = Builder()
    builder.input("x", (2, 3))
    builder.layer(kind, "view", ["x"], ["y"], **fields)
    builder.output("y")
    model = mlferry.MLModel(builder.model())
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = x.copy()
    y = model.predict({"x": given})["y"]
    kept = y.copy()
    assert not np.shares_memory(y, given)
    y[...] = -1
    np.testing.assert_array_equal(given, x)
    np.testing.assert_array_equal(model.predict({"x": given})["y"], kept)


def test_a_custom_layer_that_changes_its_input_changes_that_of_nobody() -> None:
    class Doubled(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            inputs[0] *= 2
            return inputs

    model = mlferry.MLModel(custom("Doubled"), custom_layers={"Doubled": Doubled})
    x = np.ones((1, 3), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(model.predict({"x": x})["Doubled_out"], 2 * np.ones((1, 3)))
    np.testing.assert_array_equal(x, np.ones((1, 3)))
