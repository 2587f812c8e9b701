"""Comparing two models: measures against naive ones, every form of samples, every form of model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import PredictionError, UnsupportedModelError
from mlferry.layers.builder import Builder
from mlferry.models.compare import compare_models, first_difference
from mlferry.models.samples import samples_for
from mlferry.spec import features
from mlferry.spec.proto import model_pb2


def scaled(factor: float, shift: float = 0.0, outputs: int = 1) -> mlferry.MLModel:
    """y = factor * x + shift, and z = -x with two outputs."""
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("activation", "first", ["x"], ["h"], linear={"alpha": 1.0})
    builder.layer("activation", "second", ["h"], ["y"], linear={"alpha": factor, "beta": shift})
    builder.output("y")
    if outputs == 2:
        builder.layer("activation", "third", ["h"], ["z"], linear={"alpha": -1.0})
        builder.output("z")
    return mlferry.MLModel(builder.model())


def classifier(order: list[int], labels: Any = "abcdefgh") -> mlferry.MLModel:
    """The probability of each label is that of an input, in another order."""
    builder = Builder()
    builder.input("x", (8,))
    matrix = np.eye(8, dtype=np.float32)[order]
    builder.layer("innerProduct", "pick", ["x"], ["y"], inputChannels=8, outputChannels=8,
                  weights=matrix)  # fmt: skip
    builder.output("y")
    return mlferry.MLModel(builder.model(builder.classifier([*labels], "y")))


def pictures(factor: float) -> mlferry.MLModel:
    builder = Builder()
    builder.input("image", (1, 3, 8, 6), features.image(6, 8, "RGB"))
    builder.layer("activation", "it", ["image"], ["out"], linear={"alpha": factor})
    builder.output("out", features.image(6, 8, "RGB"))
    return mlferry.MLModel(builder.model())


DATA = [{"x": np.array([[1.0, -2, 3, 4]])}, {"x": np.array([[0.5, 0, 0, -1]])}]


def test_arrays_beside_naive_measures() -> None:
    report = compare_models(scaled(1.0), scaled(1.0, 0.25), DATA)
    numbers = report.outputs["y"].numbers
    signals = [sum(v * v for v in one["x"].ravel()) / 4 for one in DATA]
    noise = 0.25**2
    peaks = [16, 1]
    assert numbers["snr"] == pytest.approx(10 * np.log10(sum(signals) / (2 * noise)))
    assert numbers["worst_snr"] == pytest.approx(10 * np.log10(min(signals) / noise))
    assert numbers["psnr"] == pytest.approx(10 * np.log10(max(peaks) / noise))
    assert numbers["largest_difference"] == numbers["mean_difference"] == 0.25
    cosines = []
    for one in DATA:
        a = one["x"].ravel()
        b = a + 0.25
        cosines.append(sum(a * b) / (sum(a * a) * sum(b * b)) ** 0.5)
    assert numbers["cosine"] == pytest.approx(np.mean(cosines))
    assert report.worst(1)[0].sample == "sample 1"
    assert report.count == 2


def test_one_sample_that_is_far_off_is_not_hidden() -> None:
    """Of 50 samples 49 agree but for rounding; the mean of the decibels would be above 100."""
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(size=(1, 4))} for _ in range(50)]
    bad = data[30]["x"]

    def other(sample: Any) -> Any:
        return sample["x"] + (0.3 if sample["x"] is bad else 1e-6)

    report = compare_models(lambda sample: sample["x"], other, data)
    numbers = report.outputs["output 0"].numbers
    every = np.concatenate([one["x"] for one in data])
    pooled = 10 * np.log10(np.square(every).sum() / (4 * 0.09 + 49 * 4 * 1e-12))
    worst = 10 * np.log10(np.square(bad).sum() / (4 * 0.09))
    assert numbers["snr"] == pytest.approx(pooled)
    assert numbers["worst_snr"] == pytest.approx(worst)
    assert numbers["snr"] < 40
    for shown in (str(report), report.html(), report._repr_html_()):
        assert f"{pooled:.2f} dB" in shown
        assert f"{worst:.2f} dB" in shown
        assert "SNR, worst sample" in shown
    plain = report.to_dict()["outputs"]["output 0"]["numbers"]
    assert (plain["snr"], plain["worst_snr"]) == (numbers["snr"], numbers["worst_snr"])


def test_what_is_not_a_number_is_the_worst() -> None:
    report = compare_models(
        lambda sample: sample["x"], lambda sample: sample["x"] * np.nan, DATA[:1]
    )
    assert np.isnan(report.outputs["output 0"].numbers["worst_snr"])


def two_inputs() -> mlferry.MLModel:
    builder = Builder()
    builder.input("left", (1, 3))
    builder.input("right", (1, 3))
    builder.layer("subtractBroadcastable", "d", ["left", "right"], ["y"])
    builder.output("y")
    return mlferry.MLModel(builder.model())


LEFT, RIGHT = np.array([[1.0, 2, 3]], np.float32), np.array([[5.0, 7, 11]], np.float32)


@pytest.mark.parametrize("form", ["names", "dict", "other names", "class"])
@pytest.mark.parametrize("sample", [{"left": LEFT, "right": RIGHT}, {"right": RIGHT, "left": LEFT}])
def test_inputs_of_a_keras_model_go_by_their_names(library: Any, form: str, sample: Any) -> None:
    keras = library("keras")
    names = ("a", "b") if form == "other names" else ("left", "right")
    left, right = (keras.Input((3,), name=name) for name in names)
    result = keras.layers.Subtract()([left, right])
    arguments: Any = {"right": right, "left": left} if form == "dict" else [left, right]
    model = keras.Model(arguments, result)
    if form == "class":

        class Difference(keras.Model):  # type: ignore[misc]
            def call(self, inputs: Any) -> Any:
                return inputs[0] - inputs[1]

        model = Difference()
    for pair in ((model, two_inputs()), (two_inputs(), model)):
        report = compare_models(*pair, [sample])
        (output,) = report.outputs.values()
        assert output.numbers["largest_difference"] == 0


def test_inputs_of_other_names_are_not_guessed(library: Any) -> None:
    keras = library("keras")
    inputs = [keras.Input((3,), name=name) for name in ("left", "other")]
    model = keras.Model(inputs, keras.layers.Subtract()(inputs))
    with pytest.raises(PredictionError, match=r"takes 'left', 'other'; the sample has 'left', 'ri"):
        compare_models(model, two_inputs(), [{"left": LEFT, "right": RIGHT}])


def test_the_same_model_agrees_fully() -> None:
    report = compare_models(scaled(1.0), scaled(1.0), DATA)
    numbers = report.outputs["y"].numbers
    assert numbers["snr"] == numbers["psnr"] == np.inf
    assert numbers["cosine"] == 1
    assert numbers["largest_difference"] == 0


def test_labels() -> None:
    def ranks(*order: int) -> dict[str, Any]:
        values = np.zeros(8)
        values[list(order)] = np.linspace(1, 0.1, len(order))
        return {"x": values}

    first = classifier([*range(8)])
    second = classifier([1, 0, *range(2, 8)])  # what was `a` is `b`
    data = [ranks(0, 1), ranks(2, 3), ranks(0, 2, 3, 4, 5, 6, 7, 1), ranks(5, 0)]
    report = compare_models(first, second, data)
    assert report.top1 == 0.5
    assert report.top5 == 0.75
    assert report.outputs["classLabel"].numbers == {"top1": 0.5}
    assert report.worst(1, "y")[0].sample == "sample 2"
    text = str(report)
    assert "Compared 4 samples" in text
    assert "Top 1 agreement:     50.00%" in text
    assert "Output classLabel:\n------------------\n" in text
    assert "<td>75.00% (30.1 to 95.4%)</td>" in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))["outputs"]["y"]["numbers"]["top5"] == 0.75


def test_numbers_as_labels() -> None:
    report = compare_models(
        classifier([*range(8)], range(8)), classifier([*range(8)], range(8)), np.eye(8)
    )
    assert report.top1 == report.top5 == 1
    assert report.outputs["classLabel"].kind == "label"


def test_several_outputs() -> None:
    report = compare_models(scaled(1.0, outputs=2), scaled(2.0, outputs=2), DATA)
    assert set(report.outputs) == {"y", "z"}
    assert report.outputs["z"].numbers["largest_difference"] == 0
    assert report.outputs["y"].numbers["snr"] == pytest.approx(0)


@pytest.mark.parametrize(
    "data",
    [
        np.stack([one["x"][0] for one in DATA]),
        [one["x"] for one in DATA],
        iter(DATA),
        DATA,
    ],
)
def test_forms_of_samples(data: Any) -> None:
    assert compare_models(scaled(1.0), scaled(1.0, 1), data).count == 2


def test_one_sample_is_enough() -> None:
    assert compare_models(scaled(1.0), scaled(1.0), DATA[0]).count == 1
    assert compare_models(scaled(1.0), scaled(1.0), DATA[0]["x"]).count == 1


def test_functions_and_sequences() -> None:
    model = scaled(2.0, outputs=2)
    by_name = compare_models(model, lambda data: {"y": 2 * data["x"], "other": 3}, DATA)
    assert by_name.outputs["y"].numbers["largest_difference"] == 0
    by_order = compare_models(lambda data: [2 * data["x"][0], -data["x"]], model, DATA)
    assert set(by_order.outputs) == {"y", "z"}
    assert by_order.outputs["z"].numbers["largest_difference"] == 0
    plain = compare_models(scaled(3.0), lambda data: 3 * data["x"], DATA)
    assert plain.outputs["y"].numbers["largest_difference"] == 0
    chances = compare_models(classifier([*range(8)]), lambda data: data["x"], np.eye(8))
    assert chances.top1 == 1


def test_an_onnx_session(library: Any) -> None:
    runtime, onnx = library("onnxruntime"), library("onnx")
    node = onnx.helper.make_node("Mul", ["in", "in"], ["square"])
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [node], "g", [onnx.helper.make_tensor_value_info("in", kind, (1, 4))],
        [onnx.helper.make_tensor_value_info("square", kind, (1, 4))],
    )  # fmt: skip
    result = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)],
                                  ir_version=8)  # fmt: skip
    session = runtime.InferenceSession(
        result.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    report = compare_models(lambda data: data["x"] ** 2, session, DATA)
    assert report.outputs["square"].numbers["largest_difference"] < 1e-6
    assert compare_models(scaled(1.0), session, DATA).outputs["y"].numbers["snr"] < 10


def test_custom_layers() -> None:
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("custom", "c", ["x"], ["y"], className="ComparedTwice", output_shapes=[(1, 4)])
    builder.output("y")

    class Twice(mlferry.CustomLayer):
        def output_shapes(self, input_shapes: Any) -> Any:
            return list(input_shapes)

        def evaluate(self, inputs: Any) -> Any:
            return [2 * inputs[0]]

    model = mlferry.MLModel(builder.model(), custom_layers={"ComparedTwice": Twice})
    assert compare_models(model, scaled(2.0), DATA).outputs["y"].numbers["snr"] == np.inf


@pytest.mark.parametrize(
    ("first", "second", "data", "words"),
    [
        (scaled(1.0), lambda data: [data["x"], data["x"]], DATA, "differ in number"),
        (scaled(1.0), lambda data: data["x"][:, :2], DATA, "shape"),
        (scaled(1.0), 3, DATA, "int cannot be compared"),
        (scaled(1.0), scaled(1.0), [], "no sample"),
        (scaled(1.0), scaled(1.0), 7, "not a int"),
        (scaled(1.0), scaled(1.0), ".", "none: give a list of dicts"),
        (lambda data: 1, lambda data: 1, np.zeros(3), "unknown names"),
        (classifier([*range(8)]), classifier([*range(8)], "abcdefgx"), np.eye(8), "labels of"),
    ],
)
def test_what_does_not_fit(first: Any, second: Any, data: Any, words: str) -> None:
    with pytest.raises(PredictionError, match=words):
        compare_models(first, second, data)


# ---- pictures ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    (tmp_path / "inner").mkdir()
    for name, size in (
        ("a.JPG", (6, 8)), ("b.png", (60, 80)), ("c.webp", (30, 9)), ("d.bmp", (7, 31)),
        ("inner/e.jpeg", (6, 8)),
    ):  # fmt: skip
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / name)
    image.fromarray(rng.integers(0, 255, (8, 6), dtype=np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    return tmp_path


def test_a_folder_of_pictures(folder: Path) -> None:
    report = compare_models(pictures(1.0), pictures(0.5), folder)
    assert report.count == 5
    assert list(report.unreadable) == ["broken.png"]
    assert "Not readable: broken.png" in str(report)
    assert "broken.png" in report._repr_html_()
    text = report.html("one & other")
    assert "<title>one &amp; other</title>" in text
    assert report.worst()[0].sample in text
    facts = text[text.index('id="facts">') + len('id="facts">') :]
    assert json.loads(facts[: facts.index("</script>")])["count"] == report.count
    assert {row.sample for row in report.rows} == {"a.JPG", "b.png", "c.webp", "d.bmp", "grey.png"}
    assert 5 < report.outputs["out"].numbers["snr"] < 7
    assert compare_models(pictures(1.0), pictures(1.0), str(folder), nested=True).count == 6


def test_pictures_cover_the_input_and_keep_their_shape(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    stripes = np.zeros((16, 60, 3), np.uint8)
    stripes[:, 24:36] = 200  # the middle, as wide as 6 of 8 rows are high
    image.fromarray(stripes).save(tmp_path / "wide.png")
    (sample,) = samples_for(pictures(1.0).get_spec(), tmp_path)
    assert sample.data["image"].size == (6, 8)
    assert np.asarray(sample.data["image"])[:, 1:5].min() > 190


def test_one_picture_is_a_sample(folder: Path) -> None:
    report = compare_models(pictures(1.0), pictures(0.5), folder / "a.JPG")
    assert [row.sample for row in report.rows] == ["a.JPG"]
    with pytest.raises(PredictionError, match="no folder"):
        compare_models(pictures(1.0), pictures(0.5), folder / "notes.txt")
    np.savez(folder / "one.npz", x=DATA[0]["x"])
    assert compare_models(scaled(1.0), scaled(1.0), folder / "one.npz").count == 1


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="no folder"):
        compare_models(pictures(1.0), pictures(1.0), tmp_path / "none")
    with pytest.raises(PredictionError, match="holds no picture"):
        compare_models(pictures(1.0), pictures(1.0), tmp_path)
    pytest.importorskip("PIL")
    (tmp_path / "broken.jpg").write_bytes(b"x")
    with pytest.raises(PredictionError, match="no picture could be read"):
        compare_models(pictures(1.0), pictures(1.0), tmp_path)


# ---- the first difference ---------------------------------------------------------------------


def test_first_difference() -> None:
    assert first_difference(scaled(1.0), scaled(1.0), DATA[0]) is None
    assert first_difference(scaled(1.0), scaled(1.0001), DATA[0]) is None
    actual = first_difference(scaled(2.0), scaled(2.0, 1.0), DATA[0])
    assert actual is not None
    assert (actual.blob, actual.layer, actual.kind) == ("y", "second", "activation")
    assert actual.largest == 1
    assert actual.relative == 1 / 8
    assert "'second' is the first to differ" in str(actual)
    assert first_difference(scaled(2.0), scaled(2.0, 1.0), DATA[0], tolerance=0.2) is None


def test_first_difference_of_shapes_and_names() -> None:
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("reshapeStatic", "r", ["x"], ["h"], targetShape=[2, 2])
    builder.output("h")
    actual = first_difference(scaled(1.0), mlferry.MLModel(builder.model()), DATA[0])
    assert actual is not None
    assert actual.shapes == ((1, 4), (2, 2))
    assert "shapes (1, 4) and (2, 2)" in str(actual)
    builder.rename_blob("h", "else")
    builder.description.output[0].name = "else"
    with pytest.raises(PredictionError, match="no blob of the same name"):
        first_difference(scaled(1.0), mlferry.MLModel(builder.model()), DATA[0])


def test_first_difference_needs_networks() -> None:
    spec = model_pb2.Model(specificationVersion=1)
    spec.description.output.add(name="y").type.doubleType.SetInParent()
    spec.description.input.add(name="x").type.doubleType.SetInParent()
    spec.description.predictedFeatureName = "y"
    spec.glmRegressor.weights.add().value.append(1.0)
    spec.glmRegressor.offset.append(0.0)
    model = mlferry.MLModel(spec)
    with pytest.raises(UnsupportedModelError):
        first_difference(model, model, {"x": 1.0})
    report = compare_models(model, model, [{"x": 1.0}, {"x": 2.0}])
    assert report.outputs["y"].numbers["snr"] == np.inf
