"""Model tools: names, parts, pipelines, types, labels, and known answers."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import (
    ModelFileError,
    PredictionError,
    RegistrationError,
    SpecError,
    ValidationError,
)
from mlferry.layers.builder import Builder
from mlferry.layers.validate import validate
from mlferry.models import utils
from mlferry.spec import features, networks, weights
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

RNG = np.random.default_rng(0)
IP = RNG.normal(size=(3, 4)).astype(np.float32)


def network(*, classifier: bool = False, image: bool = False) -> model_pb2.Model:
    """x -> conv -> mean over pixels -> inner product -> softmax."""
    builder = Builder()
    builder.input("x", (1, 3, 6, 6), features.image(6, 6, "RGB") if image else None)
    builder.layer(
        "convolution", "conv", ["x"], ["a"], outputChannels=4, kernelChannels=3,
        kernelSize=[1, 1], valid={}, weights=RNG.normal(size=(4, 3, 1, 1)).astype(np.float32),
    )  # fmt: skip
    builder.layer("reduceMean", "mean", ["a"], ["m"], axes=[2, 3], keepDims=False)
    builder.layer("innerProduct", "ip", ["m"], ["i"], inputChannels=4, outputChannels=3,
                  weights=IP)  # fmt: skip
    builder.layer("softmaxND", "soft", ["i"], ["p"], axis=-1)
    builder.output("p")
    if image:
        builder.network.preprocessing.add(featureName="x").scaler.channelScale = 0.5
    return builder.model(builder.classifier([*"rgb"], "p") if classifier else None)


def looping() -> model_pb2.Model:
    """A loop whose condition is a blob, with a custom layer inside."""
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("copy", "start", ["x"], ["state"])
    loop = builder.layer("loop", "again", [], [], maxLoopIterations=3)
    inner = loop.loop.bodyNetwork.layers.add(name="odd", input=["state"], output=["state"])
    inner.custom.className = "UtilsOdd"
    loop.loop.bodyNetwork.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    builder.layer("copy", "end", ["state"], ["y"])
    builder.output("y")
    return builder.model()


SAMPLE = RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)


def predict(spec: Any, data: dict[str, Any] | None = None) -> dict[str, Any]:
    model = spec if isinstance(spec, mlferry.MLModel) else mlferry.MLModel(spec)
    actual = model.predict(data or {"x": SAMPLE})
    assert isinstance(actual, dict)
    return actual


# ---- names ------------------------------------------------------------------------------------


def test_renamed_features_predict_the_same() -> None:
    spec = network()
    expected = predict(spec)["p"]
    utils.rename_feature(spec, "x", "photo")
    utils.rename_feature(spec, "p", "chances")
    np.testing.assert_array_equal(predict(spec, {"photo": SAMPLE})["chances"], expected)


def test_renamed_classifiers() -> None:
    spec = network(classifier=True)
    expected = predict(spec)
    utils.rename_feature(spec, "p", "chances")
    utils.rename_feature(spec, "classLabel", "label")
    actual = predict(spec)
    assert actual == {"chances": expected["p"], "label": expected["classLabel"]}


def test_renaming_reaches_preprocessing_loops_and_pipelines() -> None:
    spec = network(image=True)
    utils.rename_feature(spec, "x", "photo")
    assert networks.network_of(spec).preprocessing[0].featureName == "photo"
    loop = looping()
    known = validate(loop)
    loop.neuralNetwork.layers[1].loop.conditionVar = "y"
    utils.rename_feature(loop, "y", "z")
    assert loop.neuralNetwork.layers[1].loop.conditionVar == "z"
    loop.neuralNetwork.layers[1].loop.conditionVar = ""
    assert validate(loop) == known
    pipeline = model_pb2.Model(specificationVersion=4)
    pipeline.description.CopyFrom(network().description)
    pipeline.pipeline.models.append(network())
    utils.rename_feature(pipeline, "x", "photo")
    assert predict(pipeline, {"photo": SAMPLE}).keys() == {"p"}
    inner = pipeline.pipeline.models[0]
    assert inner.neuralNetwork.layers[0].input == ["photo"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("y", "z", "no input or output 'y'"), ("x", "m", "'m' is taken"), ("x", "", "empty"),
     ("x", "p", "'p' is taken")],
)  # fmt: skip
def test_renaming_what_is_not_there(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        utils.rename_feature(network(), old, new)
    with pytest.raises(SpecError, match="no input or output"):
        utils.rename_feature(network(), "p", "q", rename_outputs=False)


@pytest.mark.parametrize("name", ["x", "p"])
@pytest.mark.parametrize("make", [network, lambda: network(classifier=True)])
def test_renames_as_coremltools_does(library: Any, name: str, make: Any) -> None:
    tools = library("coremltools")
    spec = make()
    other = tools.proto.Model_pb2.Model()
    other.ParseFromString(spec.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tools.utils.rename_feature(other, name, "new")
    utils.rename_feature(spec, name, "new")
    assert spec.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def test_layers_are_renamed_with_what_is_known_of_them() -> None:
    spec = looping()
    key = "com.github.mlferry.custom_layer_layout."
    spec.description.metadata.userDefined[f"{key}odd"] = "source"
    utils.rename_layer(spec, "odd", "even")
    assert dict(spec.description.metadata.userDefined) == {f"{key}even": "source"}
    with pytest.raises(SpecError, match="no layer 'odd'"):
        utils.rename_layer(spec, "odd", "other")
    with pytest.raises(SpecError, match="'end' is taken"):
        utils.rename_layer(spec, "even", "end")


def test_custom_layers_are_found_and_renamed() -> None:
    spec = looping()
    assert utils.has_custom_layer(spec)
    assert not utils.has_custom_layer(network())
    assert utils.get_custom_layer_names(spec) == {"UtilsOdd"}
    assert [layer.name for layer in utils.get_custom_layers(spec)] == ["odd"]
    utils.replace_custom_layer_name(spec, "UtilsOdd", "Even")
    assert utils.get_custom_layer_names(spec) == {"Even"}
    with pytest.raises(
        SpecError, match=r"no custom layer has the class 'Evn'. Did you mean 'Even'"
    ):
        utils.replace_custom_layer_name(spec, "Evn", "X")


# ---- parts ------------------------------------------------------------------------------------


def test_two_parts_are_the_whole() -> None:
    model = mlferry.MLModel(network())
    first = utils.extract_submodel(model, ["m"])
    second = utils.extract_submodel(model, ["p"], ["m"])
    middle = predict(first)["m"]
    np.testing.assert_array_equal(middle, model.intermediate({"x": SAMPLE}, ["m"])["m"])
    np.testing.assert_array_equal(predict(second, {"m": middle})["p"], predict(model)["p"])
    assert [layer.name for layer in networks.network_of(second.get_spec()).layers] == ["ip", "soft"]


def test_parts_keep_images_and_their_preprocessing() -> None:
    model = mlferry.MLModel(network(image=True))
    pixels = np.full((6, 6, 3), 100, np.uint8)
    part = utils.extract_submodel(model, ["a"])
    expected = model.intermediate({"x": pixels}, ["a"])["a"]
    np.testing.assert_array_equal(predict(part, {"x": pixels})["a"], expected)
    assert not networks.network_of(
        utils.extract_submodel(model, ["p"], ["m"]).get_spec()
    ).preprocessing


def test_parts_of_classic_networks() -> None:
    spec = model_pb2.Model(specificationVersion=1)
    spec.description.input.add(name="x").type.CopyFrom(features.multi_array((3, 4, 4), "float64"))
    spec.description.output.add(name="y").type.CopyFrom(features.multi_array((3,), "float64"))
    pool = spec.neuralNetwork.layers.add(name="pool", input=["x"], output=["m"])
    pool.pooling.globalPooling = True
    pool.pooling.valid.SetInParent()
    relu = spec.neuralNetwork.layers.add(name="relu", input=["m"], output=["y"])
    relu.activation.ReLU.SetInParent()
    part = utils.extract_submodel(mlferry.MLModel(spec), ["y"], ["m"])
    assert list(part.get_spec().description.input[0].type.multiArrayType.shape) == [3]
    assert part.predict({"m": np.array([-1.0, 0.0, 2.0])})["y"].ravel().tolist() == [0, 0, 2]


def test_parts_that_cannot_be() -> None:
    model = mlferry.MLModel(network())
    with pytest.raises(SpecError, match="no blob 'q'"):
        utils.extract_submodel(model, ["q"])
    with pytest.raises(SpecError, match="no layer needs 'p' for the outputs"):
        utils.extract_submodel(model, ["m"], ["x", "p"])
    builder = Builder()
    builder.input("x", (1, 3))
    builder.input("z", (1, 3))
    builder.layer("custom", "odd", ["x"], ["a"], className="PartOdd", output_shapes=[(1, 3)])
    builder.layer("addBroadcastable", "sum", ["a", "z"], ["y"])
    builder.output("y")
    custom = mlferry.MLModel(builder.model())
    with pytest.raises(SpecError, match="'y' also need 'z'; add them to inputs"):
        utils.extract_submodel(custom, ["y"], ["a"])
    with pytest.raises(SpecError, match="shape of blob 'a' is unknown"):
        utils.extract_submodel(custom, ["y"], ["a", "z"])


# ---- pipelines --------------------------------------------------------------------------------


def test_pipelines_predict_what_their_models_do() -> None:
    model = mlferry.MLModel(network(classifier=True))
    first = utils.extract_submodel(model, ["m"])
    second = utils.extract_submodel(mlferry.MLModel(network()), ["p"], ["m"])
    pipeline = utils.make_pipeline(first, second)
    assert pipeline.get_spec().WhichOneof("Type") == "pipeline"
    expected = predict(second, {"m": predict(first)["m"]})
    np.testing.assert_array_equal(predict(pipeline)["p"], expected["p"])
    ended = utils.make_pipeline(first, utils.attach_class_labels(second, [*"rgb"]))
    spec = ended.get_spec()
    assert spec.WhichOneof("Type") == "pipelineClassifier"
    assert predict(ended)["classLabel"] == "rgb"[int(np.argmax(expected["p"]))]
    assert not [p for p in validate(spec) if p.severity == "error"]


def test_pipelines_that_cannot_be() -> None:
    model = mlferry.MLModel(network())
    with pytest.raises(SpecError, match="two models"):
        utils.make_pipeline(model)
    with pytest.raises(SpecError, match="model 2 takes x; the models before make p"):
        utils.make_pipeline(model, model)
    builder = Builder()
    builder.input("p", (1, 4))
    builder.layer("activation", "relu", ["p"], ["y"], ReLU={})
    builder.output("y")
    with pytest.raises(SpecError, match=r"'p' is multi-array float32 1 x 3 before model 2, which"):
        utils.make_pipeline(model, mlferry.MLModel(builder.model()))


# ---- types and labels -------------------------------------------------------------------------


def test_numbers_of_other_types() -> None:
    model = mlferry.MLModel(network())
    result = utils.change_input_output_types(model, {"x": "float64", "p": "float16"})
    assert predict(result)["p"].dtype == np.float16
    assert result.get_spec().specificationVersion == 7
    assert model.get_spec().specificationVersion == 4
    spec = result.get_spec()
    utils.convert_double_to_float_multiarray_type(spec)
    array = spec.description.input[0].type.multiArrayType
    assert array.dataType == ft.ArrayFeatureType.FLOAT32


def test_arrays_become_images_and_back() -> None:
    model = mlferry.MLModel(network())
    pixels = RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    blob = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    expected = predict(model, {"x": blob})["p"]
    image = utils.change_input_output_types(model, {"x": "RGB"})
    np.testing.assert_array_equal(predict(image, {"x": pixels})["p"], expected)
    back = utils.change_input_output_types(image, {"x": "float32"})
    np.testing.assert_array_equal(predict(back, {"x": blob})["p"], expected)
    turned = utils.change_input_output_types(image, {"x": "BGR"})
    np.testing.assert_array_equal(predict(turned, {"x": pixels[:, :, ::-1]})["p"], expected)


WRONG: list[tuple[type[Exception], str, Callable[[mlferry.MLModel], object]]] = [
    (SpecError, "no input or output 'q'",
     lambda m: utils.change_input_output_types(m, {"q": "float32"})),
    (SpecError, "none of float32",
     lambda m: utils.change_input_output_types(m, {"x": "float8"})),
    (SpecError, r"comes from an array \[1, 1, height, width\]",
     lambda m: utils.change_input_output_types(m, {"x": "GRAYSCALE"})),
    (ValidationError, "problems",
     lambda m: utils.change_input_output_types(m, {"x": features.string()})),
    (SpecError, "2 labels for 3 values", lambda m: utils.attach_class_labels(m, ["a", "b"])),
    (SpecError, "one of p", lambda m: utils.attach_class_labels(m, [*"abc"], probabilities="q")),
    (SpecError, "at least one", lambda m: utils.attach_class_labels(m, [])),
    (SpecError, "all of one kind", lambda m: utils.attach_class_labels(m, ["a", 1, 2])),
]  # fmt: skip


def test_labels_for_an_output_whose_shape_is_not_described() -> None:
    """As of models whose sizes vary: the layers tell it."""
    spec = network()
    spec.description.output[0].type.multiArrayType.ClearField("shape")
    model = mlferry.MLModel(spec)
    with pytest.raises(SpecError, match="2 labels for 3 values of 'p'"):
        utils.attach_class_labels(model, ["a", "b"])
    assert utils.attach_class_labels(model, [*"abc"]).spec.HasField("neuralNetworkClassifier")


@pytest.mark.parametrize(("error", "message", "call"), WRONG, ids=[row[1] for row in WRONG])
def test_wrong_changes(error: Any, message: str, call: Any) -> None:
    with pytest.raises(error, match=message):
        call(mlferry.MLModel(network()))


@pytest.mark.parametrize("expected", ["GRAYSCALE", "GRAYSCALE_FLOAT16", "grey"])
@pytest.mark.parametrize("name", ["x", "out"])
def test_images_keep_their_number_of_channels(expected: str, name: str) -> None:
    """A network that takes or makes three channels; the same the other way round."""
    builder = Builder()
    builder.input("x", (1, 3, 6, 6), features.image(6, 6, "RGB"))
    builder.layer("convolution", "conv", ["x"], ["out"], outputChannels=3, kernelChannels=3,
                  kernelSize=[1, 1], valid={}, weights=RNG.normal(size=(3, 3, 1, 1)))  # fmt: skip
    builder.output("out", features.image(6, 6, "RGB"))
    model = mlferry.MLModel(builder.model())
    kind = features.image(6, 6, "GRAYSCALE") if expected == "grey" else expected
    with pytest.raises(SpecError, match=r"has 1, which|takes 3|problems"):
        utils.change_input_output_types(model, {name: kind})
    assert utils.change_input_output_types(model, {name: "BGR"}).spec.description.output


def test_other_sizes_are_checked() -> None:
    """A type of another size, or with ranges, is taken where the layers hold for it."""
    builder = Builder()
    builder.input("x", (1, 3, 6, 6))
    builder.layer("sliceStatic", "cut", ["x"], ["y"], strides=[1] * 4, beginIds=[0] * 4,
                  beginMasks=[1] * 4, endIds=[0, 0, 0, 6], endMasks=[1, 1, 1, 0])  # fmt: skip
    builder.output("y", features.multi_array(None))
    model = mlferry.MLModel(builder.model())
    higher = features.multi_array((1, 3, 9, 6))
    result = utils.change_input_output_types(model, {"x": higher})
    assert predict(result, {"x": np.ones((1, 3, 9, 6))})["y"].shape == (1, 3, 9, 6)
    with pytest.raises(SpecError, match=r"do not take 'x' as.*sliceStatic 'cut'"):
        utils.change_input_output_types(model, {"x": features.image(9, 6, "RGB")})
    ranged = features.multi_array((1, 3, 6, 6))
    for low, high in ((1, 1), (3, 3), (6, 6), (6, 9)):
        features.set_range(ranged.multiArrayType.shapeRange.sizeRanges.add(), low, high)
    with pytest.raises(SpecError, match=r"not take all of these sizes.*\n.*sliceStatic 'cut'"):
        utils.change_input_output_types(model, {"x": ranged})


def scaled_by_custom(factor: float) -> type[mlferry.CustomLayer]:
    class Scaled(mlferry.CustomLayer):
        def output_shapes(self, input_shapes: Any) -> Any:
            return list(input_shapes)

        def evaluate(self, inputs: Any) -> Any:
            return [factor * inputs[0]]

    return Scaled


def with_custom(inputs: str, result: str, factor: float, **options: Any) -> mlferry.MLModel:
    """A custom layer, with the class that belongs to it."""
    builder = Builder()
    builder.input(inputs, (1, 3, 6, 6))
    builder.layer("activation", "relu", [inputs], [f"{result}/relu"], ReLU={})
    builder.layer("custom", "own", [f"{result}/relu"], [result], className="ScaledByOwn",
                  output_shapes=[(1, 3, 6, 6)])  # fmt: skip
    builder.output(result)
    return mlferry.MLModel(
        builder.model(), custom_layers={"ScaledByOwn": scaled_by_custom(factor)}, **options
    )


OTHERS: dict[str, Callable[[mlferry.MLModel], mlferry.MLModel]] = {
    "8 bits": lambda m: mlferry.quantize_weights(m, 8),
    "half": utils.convert_neural_network_weights_to_fp16,
    "part": lambda m: utils.extract_submodel(m, ["y"], ["y/relu"]),
    "types": lambda m: utils.change_input_output_types(m, {"y": "float64"}),
    "labels": lambda m: utils.attach_class_labels(m, [*range(108)]),
    "pipeline": lambda m: utils.make_pipeline(m, mlferry.MLModel(copying("y", "z"))),
    "pipeline, second": lambda m: utils.make_pipeline(mlferry.MLModel(copying("w", "x")), m),
    "no training": utils.without_training,
    "renamed": lambda m: m.with_spec(renamed_input(m)),
    "pickled": lambda m: pickle.loads(cloudpickle().dumps(m)),
}


def copying(inputs: str, result: str) -> model_pb2.Model:
    builder = Builder()
    builder.input(inputs, (1, 3, 6, 6))
    builder.layer("activation", "it", [inputs], [result], linear={"alpha": 1.0})
    builder.output(result)
    return builder.model()


def renamed_input(model: mlferry.MLModel) -> model_pb2.Model:
    spec = model.get_spec()
    utils.rename_feature(spec, "x", "photo")
    return spec


def cloudpickle() -> Any:
    return pytest.importorskip("cloudpickle")


@pytest.mark.parametrize("tool", OTHERS)
@pytest.mark.parametrize(
    "options", [{"engine": "onnxruntime", "threads": 1}, {"engine": "numpy", "winograd": False}]
)
def test_tools_keep_engine_options_and_classes(
    library: Any, tool: str, options: dict[str, Any]
) -> None:
    library("onnxruntime")
    model = with_custom("x", "y", 3.0, **options)
    result = OTHERS[tool](model)
    assert result._classes.engine == model._classes.engine
    assert set(result.custom_layers) == {"ScaledByOwn"}
    (name,) = (f.name for f in result.spec.description.input)
    sample = np.abs(SAMPLE)
    expected = sample * 3
    results = [v for v in result.predict({name: sample}).values() if not isinstance(v, int)]
    actual = results[0].values() if isinstance(results[0], dict) else results[0]
    np.testing.assert_allclose(np.ravel([*actual]), expected.ravel(), rtol=1e-3)


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(RegistrationError, match="different classes for 'ScaledByOwn'"):
        utils.make_pipeline(with_custom("x", "y", 2.0), with_custom("y", "z", 3.0))


def test_labels_are_attached_and_replaced() -> None:
    model = mlferry.MLModel(network())
    chances = predict(model)["p"].ravel()
    result = utils.attach_class_labels(model, [10, 20, 30])
    assert predict(result)["classLabel"] == [10, 20, 30][int(np.argmax(chances))]
    assert predict(result)["p"] == dict(zip([10, 20, 30], chances.tolist(), strict=True))
    again = utils.attach_class_labels(result, [1, 2, 3])
    assert set(predict(again)["p"]) == {1, 2, 3}
    with pytest.raises(SpecError, match="keep their kind"):
        utils.attach_class_labels(result, [*"abc"])
    with pytest.raises(SpecError, match="2 labels for 3 classes"):
        utils.attach_class_labels(result, [1, 2])


def test_half_precision_and_files(tmp_path: Path) -> None:
    model = utils.convert_neural_network_weights_to_fp16(mlferry.MLModel(network()))
    spec = utils.convert_neural_network_spec_weights_to_fp16(network())
    for each in (model.get_spec(), spec):
        kinds = {weights.encoding(w.message) for w in weights.iter_weights(each)}
        assert kinds == {weights.Encoding(weights.FLOAT16, 16)}
    spec.specificationVersion = 9
    path = utils.save_spec(spec, tmp_path / "half", auto_set_specification_version=True)
    assert utils.load_spec(path).specificationVersion == 4


# ---- known answers ----------------------------------------------------------------------------


def linear_regressor() -> mlferry.MLModel:
    """y = 2 a + 1, as a linear model."""
    spec = model_pb2.Model(specificationVersion=1)
    spec.description.input.add(name="a").type.doubleType.SetInParent()
    spec.description.output.add(name="y").type.doubleType.SetInParent()
    spec.description.predictedFeatureName = "y"
    spec.glmRegressor.weights.add().value.append(2)
    spec.glmRegressor.offset.append(1)
    return mlferry.MLModel(spec)


def test_regressors(tmp_path: Path) -> None:
    rows = [{"a": 1.0, "target": 3.0}, {"a": 2.0, "target": 4.0}]
    expected = {"samples": 2, "rmse": pytest.approx(np.sqrt(0.5)), "max_error": 1.0}
    assert utils.evaluate_regressor(linear_regressor(), rows) == expected
    table = tmp_path / "rows.csv"
    table.write_text("a,target\n1,3\n2,4\n")
    assert utils.evaluate_regressor(linear_regressor(), table) == expected
    with pytest.raises(ModelFileError, match="cannot read"):
        utils.evaluate_regressor(linear_regressor(), tmp_path / "none.csv")
    with pytest.raises(PredictionError, match="no column 'target'"):
        utils.evaluate_regressor(linear_regressor(), [{"a": 1}])
    with pytest.raises(PredictionError, match="no samples"):
        utils.evaluate_regressor(linear_regressor(), [])


def test_classifiers_and_transformers() -> None:
    model = mlferry.MLModel(network(classifier=True))
    actual = predict(model)
    right = {"x": SAMPLE, "target": actual["classLabel"], "probabilities": actual["p"]}
    wrong = right | {"target": "?", "probabilities": actual["p"] | {"r": actual["p"]["r"] + 0.5}}
    other = right | {"probabilities": {"z": 1.0}}
    assert utils.evaluate_classifier(model, [right, wrong]) == {"num_samples": 2, "num_errors": 1}
    assert utils.evaluate_classifier_with_probabilities(model, [right, wrong, other]) == {
        "num_samples": 3, "max_probability_error": pytest.approx(0.5), "num_key_mismatch": 1,
    }  # fmt: skip
    plain = mlferry.MLModel(network())
    answers = [{"p": predict(plain)["p"]}, {"p": predict(plain)["p"] + 1}]
    assert utils.evaluate_transformer(plain, [{"x": SAMPLE}] * 2, answers) == {
        "num_samples": 2, "num_errors": 1,
    }  # fmt: skip
    with pytest.raises(PredictionError, match="neither a classifier nor a regressor"):
        utils.evaluate_classifier(plain, [right])
