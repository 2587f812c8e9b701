"""Models that others wrote from 2017 on. They need the shared data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mlferry


class Swish(mlferry.CustomLayer):
    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [x / (1 + np.exp(-x)) for x in inputs]


def photo(shared_data: Path, name: str, size: tuple[int, int], mode: str) -> Any:
    image = pytest.importorskip("PIL.Image").open(shared_data / "photos" / name)
    return image.convert(mode).resize(size)


def test_a_drawing_embedding(shared_data: Path) -> None:
    model = mlferry.MLModel(shared_data / "mlmodel/Apple_TinyDrawingEmbedding.mlmodel")
    actual = model.predict({"drawing": photo(shared_data, "winml_mnist_28.png", (28, 28), "L")})
    assert actual["embedding"].size == 128
    assert np.isfinite(actual["embedding"]).all()


def test_a_digit_classifier(shared_data: Path) -> None:
    model = mlferry.MLModel(shared_data / "mlmodel/ph1ps_MNIST_b.mlmodel")
    actual = model.predict({"image": photo(shared_data, "winml_mnist_28.png", (28, 28), "L")})
    assert list(actual) == ["prediction", "classLabel"]
    assert set(actual["prediction"]) == set(range(10))
    assert actual["prediction"][actual["classLabel"]] == max(actual["prediction"].values())


def test_a_custom_activation(shared_data: Path) -> None:
    path = shared_data / "mlmodel/hollance_NeuralMcNeuralNet.mlmodel"
    image = photo(shared_data, "chelsea.png", (256, 256), "RGB")
    with pytest.raises(mlferry.errors.MissingCustomLayerError, match="Swish"):
        mlferry.MLModel(path).predict({"image": image})
    output = mlferry.MLModel(path, custom_layers={"Swish": Swish}).predict({"image": image})
    assert output["output"].size == 10
    assert output["output"].sum() == pytest.approx(1, abs=1e-5)


def test_one_hot_encoding_by_a_pipeline(shared_data: Path) -> None:
    path = shared_data / "mlmodel/onnxmltools_onehot_simple.mlmodel"
    inputs = np.array([3, 0, 6, 14, 5, 4, 1, 2], float)
    actual = mlferry.MLModel(path).predict({"input": inputs})["transformed_features"]
    assert actual.shape == (102,)
    assert sorted(actual)[-8:] == [1] * 8
    assert actual.sum() == 8
    assert actual[3] == 1  # the first column has the categories 0 to 8


def test_a_dense_network_of_doubles(shared_data: Path) -> None:
    path = shared_data / "mlmodel/onnxmltools_keras2coreml_Dense_ImageNet_small.mlmodel"
    actual = mlferry.MLModel(path).predict({"input1": np.ones((3, 3, 3))})["output1"]
    assert actual.dtype == np.float64
    assert actual.size == 2


def test_the_style_network_and_its_keras_source_give_the_same_picture(
    shared_data: Path, library: Callable[[str], Any]
) -> None:
    """The Keras model is rebuilt at the size of the Core ML model; both get one photo."""
    tf_keras, tf = library("tf_keras"), library("tensorflow")

    class InstanceNormalization(tf_keras.layers.Layer):
        def __init__(self, epsilon: float = 1e-3, **options: Any) -> None:
            super().__init__(name=options.get("name"))
            self.epsilon = epsilon

        def build(self, shape: Any) -> None:
            self.gamma = self.add_weight(name="gamma", shape=(shape[-1],))
            self.beta = self.add_weight(name="beta", shape=(shape[-1],))

        def call(self, x: Any) -> Any:
            mean, variance = tf.nn.moments(x, (1, 2), keepdims=True)
            return self.gamma * (x - mean) / tf.sqrt(variance + self.epsilon) + self.beta

    class DeprocessStylizedImage(tf_keras.layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(name=options.get("name"))

        def call(self, x: Any) -> Any:
            return (x + 1) * 127.5

    known = {
        "InstanceNormalization": InstanceNormalization,
        "DeprocessStylizedImage": DeprocessStylizedImage,
    }
    path = shared_data / "keras/fritz_starry_night_256x256_025.h5"
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])["config"]
    config["layers"][0]["config"]["batch_input_shape"] = [None, 640, 480, 3]
    source = tf_keras.Model.from_config(config, custom_objects=known)
    source.load_weights(path)

    image = photo(shared_data, "coffee.png", (480, 640), "RGB")
    expected = source(np.asarray(image, np.float32)[None], training=False).numpy()[0]
    model = mlferry.MLModel(shared_data / "mlmodel/fritz_starry_night_640x480_025.mlmodel")
    actual = np.asarray(model.predict({"image": image})["stylizedImage"], np.float32)
    difference = np.abs(actual - np.clip(expected, 0, 255))
    assert np.percentile(difference, 99) <= 1.0
    assert difference.mean() < 0.6


def test_loading_and_saving_changes_nothing(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted((shared_data / "mlmodel").glob("*.mlmodel")):
        model = mlferry.MLModel(path)
        saved = model.save(tmp_path / path.name)
        assert mlferry.MLModel(saved).get_spec() == model.get_spec()
        assert str(model.get_spec().WhichOneof("Type")) in repr(model)


def test_the_style_network_costs_no_transposes_inside(shared_data: Path) -> None:
    """Composed channels-first, it has the layers of Apple's conversion and a transpose an end."""

    @mlferry.channels_first
    def normalization(node: Any, builder: Any) -> None:
        gamma, beta, *_ = node.get_weights()
        builder.layer(
            "batchnorm", node.name, node.input_names, node.output_names, channels=gamma.size,
            computeMeanVar=True, instanceNormalization=True, epsilon=1e-3, gamma=gamma, beta=beta,
        )  # fmt: skip

    def deprocess(node: Any, builder: Any) -> None:
        builder.layer(
            "activation", node.name, node.input_names, node.output_names,
            linear={"alpha": 127.5, "beta": 127.5},
        )  # fmt: skip

    model = mlferry.convert(
        shared_data / "keras/fritz_starry_night_256x256_025.h5",
        custom_conversion_functions={
            "InstanceNormalization": normalization, "DeprocessStylizedImage": deprocess,
        },
    )  # fmt: skip
    theirs = mlferry.MLModel(shared_data / "mlmodel/fritz_starry_night_640x480_025.mlmodel")
    kinds = [item.WhichOneof("layer") for item in model.get_spec().neuralNetwork.layers]
    assert kinds.count("transpose") == 2
    assert len(kinds) - 2 == len(theirs.get_spec().neuralNetwork.layers)
