"""Inputs, outputs and classifiers of converted models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError, ModelFileError, PredictionError

Library = Callable[[str], Any]


@pytest.fixture
def keras(library: Library) -> Any:
    module = library("keras")
    module.backend.clear_session()
    return module


@pytest.fixture
def classifier(keras: Any) -> Any:
    """[N, 6, 5, 3] to three probabilities."""
    return keras.Sequential(
        [
            keras.layers.Input((6, 5, 3), name="picture"),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax", name="chances"),
        ]
    )


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)


PREPROCESSING: list[tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = [
    ({}, lambda x: x),
    ({"scale": 1 / 255}, lambda x: x / 255),
    ({"scale": 2 / 255, "bias": [-1, -0.5, -0.25]}, lambda x: x * 2 / 255 + [-1, -0.5, -0.25]),
    ({"bias": -3.0}, lambda x: x - 3),
    ({"scale": [0.1, 0.2, 0.3], "bias": [1, 2, 3]}, lambda x: x * [0.1, 0.2, 0.3] + [1, 2, 3]),
    ({"color_layout": "BGR"}, lambda x: x[..., ::-1]),
    (
        {"color_layout": "BGR", "bias": [-104, -117, -123]},
        lambda x: x[..., ::-1] - [104, 117, 123],
    ),
    (
        {"color_layout": "BGR", "scale": [0.1, 0.2, 0.3], "bias": [1, 2, 3]},
        lambda x: x[..., ::-1] * [0.1, 0.2, 0.3] + [1, 2, 3],
    ),
]


@pytest.mark.parametrize("index", range(len(PREPROCESSING)))
def test_images(index: int, classifier: Any, pixels: np.ndarray) -> None:
    """The network gets scale * pixel + bias, in the order of colours asked for."""
    options, reference = PREPROCESSING[index]
    converted = mlferry.convert(classifier, inputs=[mlferry.ImageType(**options)])
    expected = classifier(reference(pixels.astype(np.float32))[None].astype(np.float32))
    actual = converted.predict({"picture": pixels})["chances"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    pillow = pytest.importorskip("PIL.Image").fromarray(pixels)
    np.testing.assert_array_equal(converted.predict({"picture": pillow})["chances"], actual)


def test_a_grayscale_image(keras: Any, rng: np.random.Generator) -> None:
    model = keras.Sequential([keras.layers.Input((4, 3, 1), name="g"), keras.layers.Flatten()])
    converted = mlferry.convert(model, inputs=[mlferry.ImageType(scale=0.5, bias=1.0)])
    pixels = rng.integers(0, 256, (4, 3)).astype(np.uint8)
    (actual,) = converted.predict({"g": pixels}).values()
    np.testing.assert_allclose(actual, pixels.reshape(1, -1) * 0.5 + 1)


WRONG_IMAGES: list[tuple[Any, str]] = [
    (np.zeros((6, 5), np.uint8), r"\(height, width, 3\)"),
    (np.zeros((5, 6, 3), np.uint8), r"image is 6 x 5: write image.resize\(\(5, 6\)\)"),
    ("cat.png", "give a PIL image or an array"),
]


@pytest.mark.parametrize(("value", "message"), WRONG_IMAGES)
def test_wrong_images(classifier: Any, value: Any, message: str) -> None:
    converted = mlferry.convert(classifier, inputs=[mlferry.ImageType()])
    with pytest.raises(PredictionError, match=message):
        converted.predict({"picture": value})


def test_a_picture_of_another_mode(classifier: Any) -> None:
    image = pytest.importorskip("PIL.Image").new("RGBA", (5, 6))
    converted = mlferry.convert(classifier, inputs=[mlferry.ImageType()])
    with pytest.raises(PredictionError, match=r"image.convert\('RGB'\)"):
        converted.predict({"picture": image})


def test_an_image_output(keras: Any, rng: np.random.Generator) -> None:
    inputs = keras.layers.Input((4, 5, 3), name="x")
    model = keras.Model(inputs, keras.layers.Rescaling(1.0, name="y")(inputs))
    output = mlferry.ImageType(name="y", scale=127.5, bias=127.5)
    converted = mlferry.convert(model, outputs=[output])
    x = rng.uniform(-1.5, 1.5, (1, 4, 5, 3)).astype(np.float32)
    actual = np.asarray(converted.predict({"x": x})["y"])
    assert actual.dtype == np.uint8
    expected = np.clip(x[0] * 127.5 + 127.5, 0, 255)
    assert np.abs(actual - expected).max() <= 0.5


@pytest.mark.parametrize("labels", [["a", "b", "c"], [10, 20, 30]])
def test_classifiers(classifier: Any, labels: Any, rng: np.random.Generator) -> None:
    config = mlferry.ClassifierConfig(labels, predicted_feature_name="what")
    converted = mlferry.convert(classifier, classifier_config=config)
    x = rng.normal(size=(1, 6, 5, 3)).astype(np.float32)
    expected = np.asarray(classifier(x))[0]
    actual = converted.predict({"picture": x})
    assert list(actual) == ["chances", "what"]
    assert actual["what"] == labels[int(expected.argmax())]
    assert list(actual["chances"]) == labels
    np.testing.assert_allclose(list(actual["chances"].values()), expected, atol=1e-6)


def test_labels_from_a_file(classifier: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\nowl\n")
    config = mlferry.ClassifierConfig(tmp_path / "labels.txt")
    spec = mlferry.convert(classifier, classifier_config=config).get_spec()
    assert list(spec.neuralNetworkClassifier.stringClassLabels.vector) == ["cat", "dog", "owl"]


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"inputs": [mlferry.TensorType(name="pictur")]}, ConversionError, "mean 'picture'"),
    ({"inputs": [mlferry.TensorType(shape=(1, 6, 5, 4))]}, ConversionError, "has shape"),
    ({"inputs": ["picture"]}, ConversionError, "list of mlferry.TensorType"),
    ({"inputs": [mlferry.ImageType(color_layout="GRAYSCALE")]}, ConversionError, "3 channels"),
    ({"inputs": [mlferry.ImageType(bias=[1, 2])]}, ConversionError, "one number, or 3"),
    ({"outputs": ["chance"]}, ConversionError, "mean 'chances'"),
    ({"classifier_config": mlferry.ClassifierConfig(["a"])}, ConversionError, "1 class labels"),
    ({"classifier_config": mlferry.ClassifierConfig([])}, ConversionError, "class_labels is a"),
    ({"classifier_config": mlferry.ClassifierConfig("nowhere.txt")}, ModelFileError, "cannot read"),
    ({"minimum_deployment_target": "iOS12"}, ConversionError, "newer than iOS12.*\n.*exact array"),
    ({"minimum_deployment_target": "Windows"}, ConversionError, "write e.g. 'iOS13'"),
]


@pytest.mark.parametrize("index", range(len(WRONG)))
def test_wrong_arguments(classifier: Any, index: int) -> None:
    arguments, error, message = WRONG[index]
    with pytest.raises(error, match=message):
        mlferry.convert(classifier, **arguments)


def test_open_shapes_are_reported_together(keras: Any) -> None:
    a, b = keras.layers.Input((None, 3), name="a"), keras.layers.Input((None, 3), name="b")
    model = keras.Model([a, b], keras.layers.Concatenate(axis=1)([a, b]))
    with pytest.raises(
        ConversionError, match=r"a: \(\?, \?, 3\)\n.*b: \(\?, \?, 3\)\n.*TensorType"
    ):
        mlferry.convert(model)
    shapes = [
        mlferry.TensorType(name="a", shape=(1, 4, 3)),
        mlferry.TensorType(name="b", shape=(1, 2, 3)),
    ]
    converted = mlferry.convert(model, inputs=shapes)
    x, y = np.ones((1, 4, 3), np.float32), np.zeros((1, 2, 3), np.float32)
    (actual,) = converted.predict({"a": x, "b": y}).values()
    assert actual.shape == (1, 6, 3)


def test_flexible_shapes(keras: Any, rng: np.random.Generator) -> None:
    inputs = keras.layers.Input((None, None, 2), name="x")
    y = keras.layers.Conv2D(3, 3, padding="same", strides=2)(inputs)
    y = keras.layers.UpSampling2D()(keras.layers.MaxPooling2D(padding="same")(y))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(y))
    batch, side = mlferry.RangeDim(1, 4), mlferry.RangeDim(4, -1, default=8)
    shape = mlferry.TensorType(shape=(batch, side, side, 2))
    converted = mlferry.convert(model, inputs=[shape])
    for size in ((1, 8, 8, 2), (3, 9, 5, 2)):
        x = rng.normal(size=size).astype(np.float32)
        (actual,) = converted.predict({"x": x}).values()
        np.testing.assert_allclose(actual, model(x), atol=1e-5)
    with pytest.raises(PredictionError, match=r"1\.\.4 x 4\.\. x 4\.\. x 2"):
        converted.predict({"x": np.zeros((5, 8, 8, 2), np.float32)})


def test_metadata(classifier: Any) -> None:
    spec = mlferry.convert(classifier).get_spec()
    told = spec.description.metadata.userDefined
    assert told["com.github.mlferry.source"].startswith("Keras 3")
    assert spec.specificationVersion == 4


def test_what_is_no_model() -> None:
    with pytest.raises(ConversionError, match="converts Keras models"):
        mlferry.convert(object())
