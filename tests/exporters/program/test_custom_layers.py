"""Custom layers: pipelines of programs and of small networks, in as few parts as can be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError, PredictionError
from mlferry.layers.builder import Builder
from mlferry.models.flexible_shapes import (
    add_multiarray_ndshape_enumeration,
    set_multiarray_ndshape_range,
)
from mlferry.models.problems import validate
from mlferry.models.scaffold import python_files
from mlferry.models.surgery import make_pipeline
from mlferry.models.view.graph import graph_of
from mlferry.models.view.page import page
from mlferry.spec import features
from tests.exporters.program.support import alike, kinds, network_of, read_by_coremltools
from tests.layers.naive import values as some

EXAMPLE = Path(__file__).parents[3] / "examples/spatial_transformer"


class Twice(mlferry.CustomLayer):
    def output_shapes(self, input_shapes: list[Any]) -> list[Any]:
        return list(input_shapes)

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [2 * x for x in inputs]


class Halves(mlferry.CustomLayer):
    """Both halves of the last axis."""

    def output_shapes(self, input_shapes: list[Any]) -> list[Any]:
        (shape,) = input_shapes
        return [(*shape[:-1], shape[-1] // 2)] * 2

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return list(np.split(inputs[0], 2, axis=-1))


class Silent(mlferry.CustomLayer):
    """Its shapes are those of what it gets, as the base class has it."""

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [inputs[0] + 1]


CLASSES = {"Twice": Twice, "Halves": Halves, "Silent": Silent}
PLUS: Mapping[str, Any] = {"alpha": 1.0}
Layer = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]


def add(x: str, y: str) -> Layer:
    return "add", [x], [y], PLUS


def custom(x: str | list[str], y: str | list[str], name: str = "Twice") -> Layer:
    reads, makes = ([x] if isinstance(x, str) else x), ([y] if isinstance(y, str) else y)
    return "custom", reads, makes, {"className": name}


def soft(x: str, y: str) -> Layer:
    return "softmax", [x], [y], {}


def flat(x: str, y: str) -> Layer:
    return "softmaxND", [x], [y], {"axis": -1}


P, N = "mlProgram", "neuralNetwork"
INNER: list[Layer] = [custom("h", "t"), add("t", "y")]


def branch(yes: list[Layer], no: list[Layer]) -> Layer:
    bodies = [network_of({"x": (1,)}, each, {}).neuralNetwork for each in (yes, no)]
    return "branch", ["x"], [], dict(zip(("ifBranch", "elseBranch"), bodies, strict=True))


# Layers, outputs and their shapes, and the kinds of the parts.
ROWS: dict[str, tuple[list[Layer], list[str], list[str]]] = {
    "in the middle": ([add("x", "h"), custom("h", "z"), add("z", "y")], ["y"], [P, N, P]),
    "at the start": ([custom("x", "z"), add("z", "y")], ["y"], [N, P]),
    "at the end": ([add("x", "z"), custom("z", "y")], ["y"], [P, N]),
    "two in a row": (
        [add("x", "h"), custom("h", "i"), custom("i", "z"), add("z", "y")], ["y"], [P, N, P],
    ),
    "two in parallel": (
        [add("x", "a"), custom("a", "b"), soft("x", "c"), custom("c", "d"),
         ("add", ["b", "d"], ["y"], {})], ["y"], [P, N, P],
    ),
    "two with layers between": (
        [add("x", "a"), custom("a", "b"), add("b", "c"), custom("c", "d"), add("d", "y")], ["y"],
        [P, N, P, N, P],
    ),
    "two ways of different length": (
        [custom("x", "a"), add("a", "b"), custom("b", "c"), add("x", "d"), custom("d", "e"),
         ("add", ["c", "e"], ["y"], {})], ["y"], [N, P, N, P],
    ),
    "alone": ([custom("x", "y")], ["y"], [N]),
    "what is behind is read before, too": (
        [add("x", "h"), custom("h", "z"), ("add", ["z", "h", "x"], ["y"], {})], ["y"], [P, N, P],
    ),
    "outputs of every part": (
        [add("x", "h"), custom("h", "z"), add("z", "y")], ["y", "z", "h"], [P, N, P],
    ),
    "two outputs of a layer": (
        [add("x", "h"), custom("h", ["a", "b"], "Halves"), ("add", ["a", "b"], ["y"], {})],
        ["y"], [P, N, P],
    ),
    "one output of two is wanted": (
        [add("x", "h"), custom("h", ["a", "b"], "Halves"), add("b", "y")], ["y"], [P, N, P],
    ),
    "names that are renamed": (
        [add("x", "a/b"), custom("a/b", "a:b"), add("a:b", "a.b")], ["a.b"], [P, N, P],
    ),
    "names of blobs that meet outputs": (
        [add("x", "y_"), custom("y_", "y."), add("y.", "y/")], ["y/"], [P, N, P],
    ),
}  # fmt: skip


def parts(spec: Any) -> list[str]:
    pipeline = spec.pipelineClassifier.pipeline if spec.HasField("pipelineClassifier") else (
        spec.pipeline
    )  # fmt: skip
    return [model.WhichOneof("Type") for model in pipeline.models]


def both(source: mlferry.MLModel, folder: Path, inputs: Mapping[str, Any], **how: Any) -> Any:
    """The pipeline of a network, after every check; it gives what the network gives."""
    converted = mlferry.to_program(source, compute_precision="float32", **how)
    problems = validate(converted.spec, converted.program_weights)
    assert not [str(p) for p in problems if p.severity != "note"]
    path = converted.save(folder / "made.mlpackage")
    again = mlferry.MLModel(path, custom_layers=CLASSES, engine="onnxruntime", threads=1)
    assert again.spec.SerializeToString(deterministic=True) == converted.spec.SerializeToString(
        deterministic=True
    )
    right = source.predict(dict(inputs))
    for model in (converted, again):
        actual = model.predict(dict(inputs))
        assert len(actual) == len(right)
        for value, expected in zip(actual.values(), right.values(), strict=True):
            alike(value, expected, 1e-5)
    return converted


@pytest.mark.parametrize("classic", [True, False], ids=["five axes", "own axes"])
@pytest.mark.parametrize("name", ROWS)
def test_pipeline(name: str, classic: bool, tmp_path: Path) -> None:
    layers, outputs, right = ROWS[name]
    shape = (2, 3, 4)
    spec = network_of({"x": shape}, layers, dict.fromkeys(outputs), classic=classic)
    if classic:
        for feature in spec.description.output:
            feature.type.multiArrayType.shape.extend((2, 3, 2) if "two" in name else shape)
        if "two" in name and "outputs" not in name and "wanted" not in name:
            del spec.description.output[0].type.multiArrayType.shape[:]
            spec.description.output[0].type.multiArrayType.shape.extend(shape)
    source = mlferry.MLModel(spec, custom_layers=CLASSES)
    actual = both(source, tmp_path, {"x": some(*shape)})
    assert parts(actual.spec) == right
    for model in actual.spec.pipeline.models:
        if model.HasField("neuralNetwork"):
            assert {layer.WhichOneof("layer") for layer in model.neuralNetwork.layers} == {"custom"}


def test_in_a_branch(tmp_path: Path) -> None:
    layers = [add("x", "h"), branch(INNER, [add("h", "y")]), add("y", "z")]
    spec = network_of({"x": (1,)}, layers, {"z": None})
    source = mlferry.MLModel(spec, custom_layers=CLASSES)
    for value in (0, 3):
        actual = both(source, tmp_path, {"x": np.float32([value])})
        assert parts(actual.spec) == [P, N, P]


CLASSIFIERS = {
    "probabilities behind": (
        [add("x", "h"), custom("h", "z"), flat("z", "p")], "p", [P, N, "mlProgram"],
    ),
    "probabilities before": (
        [flat("x", "p"), custom("p", "z"), add("z", "y")], "p", [P, N, P],
    ),
    "probabilities of the custom layer": (
        [flat("x", "h"), custom("h", "p")], "p", [P, "neuralNetworkClassifier"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, tmp_path: Path) -> None:
    layers, blob, right = CLASSIFIERS[name]
    outputs = {"y": (3,)} if layers[-1][2] == ["y"] else {}
    labels = ["a", "b", "c"]
    spec = network_of({"x": (3,)}, layers, outputs, labels=labels, probabilities=blob)
    source = mlferry.MLModel(spec, custom_layers=CLASSES)
    actual = both(source, tmp_path, {"x": np.float32([1, 3, 2])})
    assert parts(actual.spec) == right
    assert actual.predict({"x": np.float32([1, 3, 2])})["label"] == "b"


def test_class_that_cannot_tell_shapes() -> None:
    class Unsure(Twice):
        def output_shapes(self, input_shapes: list[Any]) -> list[Any]:
            raise ValueError("who knows")

    layers = [add("x", "h"), custom("h", "z", "Unsure"), add("z", "y")]
    model = mlferry.MLModel(
        network_of({"x": (3,)}, layers, {"y": (3,)}), custom_layers={"Unsure": Unsure}
    )
    with pytest.raises(ExportError, match="these have none: 'z'") as error:
        mlferry.to_program(model)
    assert "output_shapes" in str(error.value)


@pytest.mark.parametrize("kind", ["range", "several", "image"])
def test_sizes_that_vary(kind: str) -> None:
    """Between the models of a pipeline they would be those of the described size."""
    builder = Builder()
    described = features.image(6, 5, "GRAYSCALE") if kind == "image" else None
    builder.input("x", (1, 1, 5, 6), described)
    builder.layer("activation", "a", ["x"], ["h"], linear=PLUS)
    builder.layer("custom", "c", ["h"], ["z"], className="Twice")
    builder.layer("reduceMean", "m", ["z"], ["y"], axes=(2, 3), keepDims=True)
    builder.output("y", features.multi_array((1, 1, 1, 1)))
    spec = builder.model()
    if kind == "image":
        spec.description.input[0].type.imageType.imageSizeRange.widthRange.upperBound = -1
    elif kind == "range":
        set_multiarray_ndshape_range(spec, "x", [1, 1, 4, 6], [1, 1, 9, 6])
    else:
        add_multiarray_ndshape_enumeration(spec, "x", [[1, 1, 5, 6], [1, 1, 7, 6]])
    model = mlferry.MLModel(spec, custom_layers=CLASSES)
    with pytest.raises(ExportError, match=r"these have none: 'h' .*'x' vary: convert"):
        mlferry.to_program(model)


REFUSED: dict[str, tuple[list[Layer], dict[str, Any], bool, str]] = {
    "whole numbers that are read on": (
        [add("x", "h"), custom("h", "z"), add("z", "y")],
        {"y": None, "z": features.multi_array((1,), "int32")}, False, "output 'z' is a multi-array",
    ),
    "a way that leaves a blob": (
        [add("x", "y"), branch([custom("x", "t"), add("t", "y")], []), add("y", "z")],
        {"z": None}, False, "may leave blob 'y' as it was",
    ),
    "new layers in the classic mapping": (
        [flat("x", "h"), custom("h", "z"), add("z", "y")], {"y": None}, True, "classic mapping",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    layers, outputs, classic, message = REFUSED[name]
    spec = network_of({"x": (1,)}, layers, outputs, classic=classic)
    with pytest.raises(ExportError, match=message):
        mlferry.to_program(mlferry.MLModel(spec, custom_layers=CLASSES))


def test_classes_that_are_not_there() -> None:
    layers = [add("x", "h"), custom("h", "z", "Missing"), add("z", "y")]
    with pytest.raises(ExportError, match="Register the classes of the custom layers"):
        mlferry.to_program(network_of({"x": (3,)}, layers, {"y": (3,)}))


def test_last_layer_needs_no_shape(tmp_path: Path) -> None:
    """What the last part makes is not between parts."""
    spec = network_of({"x": (3,)}, [add("x", "h"), custom("h", "y", "Silent")], {"y": (3,)})
    both(mlferry.MLModel(spec, custom_layers=CLASSES), tmp_path, {"x": some(3)})


def test_half(tmp_path: Path) -> None:
    spec = network_of({"x": (3,)}, ROWS["in the middle"][0], {"y": (3,)})
    source = mlferry.MLModel(spec, custom_layers=CLASSES)
    model = mlferry.to_program(source)
    actual = model.predict({"x": np.float32([1, 2, 0.3])})["y"]
    np.testing.assert_allclose(actual, [5, 7, 3.6], rtol=2e-3)
    one, two, three = model.spec.pipeline.models
    assert "cast" in kinds(one)
    assert "cast" in kinds(three)
    assert two.description.input[0].type == one.description.output[0].type


# ---- sources ------------------------------------------------------------------------------------


def digits(**how: Any) -> mlferry.MLModel:
    sys.path.insert(0, str(EXAMPLE))
    try:
        from demo import convert_sampler
    finally:
        sys.path.remove(str(EXAMPLE))
    functions = {"GridSampler": how.pop("function", convert_sampler)}
    return mlferry.convert(
        mlferry.examples.path("digits_stn.h5"), custom_conversion_functions=functions,
        convert_to="mlprogram", **how,
    )  # fmt: skip


def test_a_classifier_whose_probabilities_have_the_name_of_their_blob(tmp_path: Path) -> None:
    classes = [f"digit {index}" for index in range(10)]
    image = mlferry.ImageType("image", color_layout="GRAYSCALE", scale=1 / 255)
    result = digits(classifier_config=mlferry.ClassifierConfig(classes), inputs=[image])
    model = mlferry.MLModel(result.save(tmp_path / "d.mlpackage"))
    test = np.load(mlferry.examples.path("digits_stn.npz"))
    for index in range(3):
        actual = model.predict({"image": test["x"][index, :, :, 0]})
        assert actual["classLabel"] == f"digit {test['y'][index]}"
        shown = [actual["digit"][each] for each in classes]
        np.testing.assert_allclose(shown, test["predictions"][index], atol=0.05)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 0.05)])
def test_digit_reader(precision: str, tolerance: float, tmp_path: Path) -> None:
    test = np.load(mlferry.examples.path("digits_stn.npz"))
    images = test["x"][:40].astype(np.float32) / 255
    model = mlferry.MLModel(digits(compute_precision=precision).save(tmp_path / "d.mlpackage"))
    assert parts(model.spec) == [P, N, P]
    actual = np.concatenate(
        [o["digit"] for o in model.predict([{"image": x[None]} for x in images])]
    )
    np.testing.assert_allclose(actual, test["predictions"][:40], atol=tolerance)
    for number, part in enumerate(model.spec.pipeline.models):
        if part.HasField("mlProgram"):
            single = model.with_spec(part)
            (tmp_path / str(number)).mkdir()
            read_by_coremltools(single, tmp_path / str(number))


def test_a_function_that_composes_needs_no_parts(library: Callable[[str], Any]) -> None:
    keras = library("keras")

    class Doubled(keras.layers.Layer):  # type: ignore[name-defined,misc]
        def call(self, x: Any) -> Any:
            return 2.0 * x

    def composed(node: Any, builder: Any) -> None:
        builder.layer("multiply", node.name, node.input_names, node.output_names, alpha=2.0)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), Doubled()])
    x = some(1, 4)
    converted = mlferry.convert(
        model, custom_conversion_functions={"Doubled": composed}, convert_to="mlprogram"
    )
    assert converted.spec.WhichOneof("Type") == "mlProgram"
    (value,) = converted.predict({converted.spec.description.input[0].name: x}).values()
    np.testing.assert_allclose(value, np.asarray(model(x)), rtol=5e-3, atol=5e-3)


def test_shapes_that_the_source_tells(library: Callable[[str], Any]) -> None:
    """The class does not tell them; the shapes of Keras do."""
    keras = library("keras")

    class Shifted(keras.layers.Layer):  # type: ignore[name-defined,misc]
        def call(self, x: Any) -> Any:
            return x + 1.0

    layers = [keras.Input((4,)), keras.layers.Dense(3), Shifted(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    converted = mlferry.convert(
        model,
        custom_conversion_functions={"Shifted": lambda node: mlferry.CustomLayerParams("Unseen")},
        convert_to="mlprogram",
    )
    assert parts(converted.spec) == [P, N, P]


@pytest.mark.parametrize("open_places", [0, 1, 3])
def test_masks_beyond_half_precision_that_come_from_another_part(open_places: int) -> None:
    """-1e9 is an infinity in half precision, and a softmax of infinities alone no number."""
    layers: list[Layer] = [
        ("activation", ["mask"], ["hidden"], {"linear": {"alpha": 1e9, "beta": -1e9}}),
        ("custom", ["x"], ["twice"], {"className": "Twice"}),
        ("addBroadcastable", ["twice", "hidden"], ["scores"], {}),
        ("softmaxND", ["scores"], ["weights"], {"axis": -1}),
        ("multiplyBroadcastable", ["weights", "mask"], ["y"], {}),
    ]
    spec = network_of({"x": (3,), "mask": (3,)}, layers, {"y": (3,)})
    network = mlferry.MLModel(spec, custom_layers=CLASSES)
    program = mlferry.to_program(network)
    assert parts(program.spec) == [P, N, P]
    sample = {"x": some(3), "mask": np.float32([1, 1, 1]) * (np.arange(3) < open_places)}
    alike(program.predict(sample)["y"], network.predict(sample)["y"], 2e-3)


# ---- tools --------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> tuple[mlferry.MLModel, mlferry.MLModel]:
    spec = network_of({"x": (3,)}, ROWS["in the middle"][0], {"y": (3,)})
    source = mlferry.MLModel(spec, custom_layers=CLASSES)
    return source, mlferry.to_program(source)


def test_tools_see_the_parts(pair: tuple[mlferry.MLModel, mlferry.MLModel]) -> None:
    source, result = pair
    described = result.describe()
    assert "Twice" in str(described)
    assert "Twice" in described.html()
    assert "Twice" in page(graph_of(result.spec, CLASSES, {}), "pipeline")
    (text,) = python_files(result.spec).values()
    assert "class Twice" in text
    report = mlferry.compare_models(source, result, [{"x": some(3, seed=n)} for n in range(3)])
    assert report.outputs["y"].numbers["psnr"] > 50


def test_values_inside_of_a_pipeline(pair: tuple[mlferry.MLModel, mlferry.MLModel]) -> None:
    source, pipeline = pair
    sample = {"x": some(3)}
    assert mlferry.first_difference(*pair, sample, tolerance=1e-2) is None
    exact = pipeline.with_precision("exact")
    assert mlferry.first_difference(source, exact, sample, tolerance=1e-6) is None
    shapes = mlferry.shapes(pipeline, sample)
    assert set(mlferry.shapes(source, sample)) <= set(shapes)
    assert "Twice" not in str(shapes)
    assert "custom" in str(shapes)
    names = list(pipeline.makers())
    values = pipeline.intermediate(sample, [*names, "x"])
    assert list(values) == [*names, "x"]
    np.testing.assert_array_equal(values["y"], pipeline.predict(sample)["y"])
    with pytest.raises(PredictionError, match="the pipeline has no value 'nothing'"):
        pipeline.intermediate(sample, ["nothing"])


def test_the_model_of_a_pipeline_that_differs_is_named() -> None:
    weights = [np.float32([[1, 2, 3], [0, 1, 0], [2, 0, 1]]) * scale for scale in (1.0, 1.5)]
    first, second = (_pipeline(weights[0], other) for other in weights)
    sample = {"x": some(3)}
    assert mlferry.first_difference(first, first, sample) is None
    actual = mlferry.first_difference(first, second, sample)
    assert actual is not None
    assert (actual.layer, actual.kind, actual.blob) == (
        "model_2/dense",
        "innerProduct",
        "model_2/h",
    )
    assert "innerProduct 'model_2/dense' is the first to differ: blob 'model_2/h'" in str(actual)
    every = mlferry.shapes(first, sample)
    assert list(every) == ["x", "h", "y", "model_2/h", "z"]


def _pipeline(*weights: np.ndarray) -> mlferry.MLModel:
    """Two networks whose inner blobs have one name; the second reads what the first makes."""
    models = []
    for matrix, source, target in zip(weights, "xy", "yz", strict=True):
        builder = Builder()
        builder.input(source, (3,))
        builder.layer(
            "innerProduct",
            "dense",
            [source],
            ["h"],
            inputChannels=3,
            outputChannels=3,
            weights=matrix,
        )
        builder.layer("activation", "relu", ["h"], [target], ReLU={})
        builder.output(target)
        models.append(mlferry.MLModel(builder.model()))
    return make_pipeline(*models)
