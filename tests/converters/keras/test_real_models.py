"""Real Keras files, against Keras 2 (tf_keras) or loops. They need the shared data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from tests.converters.keras import naive

Library = Callable[[str], Any]

BACKENDS = ("tensorflow", "theano")
RECURRENT = (
    "bidirectional_lstm",
    "bidirectional_lstm_no_return_sequences",
    "embedding_lstm",
    "lstm",
    "simple_rnn",
)
BY_KERAS = [
    "squeezenet/squeezenet_v1.1.h5",
    "keras/dl4jex_simple_functional_mlp.h5",
    "keras/dl4jex_simple_mlp.h5",
    "keras/fer_emotion_model.hdf5",
    "keras/mlperf_pretrainedResnet.h5",
    "keras_weights/batch_to_conv2d_tensorflow_2.h5",
    *(f"keras_weights/{name}_{backend}_2.h5" for name in RECURRENT for backend in BACKENDS),
    "keras_weights/conv2d_reshape_tensorflow_2.h5",
    "keras_weights/conv2d_tensorflow_2.h5",
    "keras_weights/dense_tensorflow_2.h5",
    "keras_weights/embedding_conv1d_extended_tensorflow_2.h5",
    "keras_weights/embedding_conv1d_flatten_tensorflow_2.h5",
    "keras_weights/embedding_conv1d_tensorflow_2.h5",
    "keras_weights/issue_9560.h5",
    "keras_weights/keras-attention.h5",
    "keras_weights/sepconv2d_tensorflow_2.h5",
]
BY_LOOPS = [
    *(f"keras_weights/{name}_{backend}_1.h5" for name in RECURRENT for backend in BACKENDS),
    "keras_weights/batch_to_conv2d_tensorflow_1.h5",
    "keras_weights/batch_to_conv2d_theano_1.h5",
    "keras_weights/batch_to_conv2d_theano_2.h5",
    "keras_weights/conv2d_reshape_tensorflow_1.h5",
    "keras_weights/conv2d_reshape_theano_1.h5",
    "keras_weights/conv2d_reshape_theano_2.h5",
    "keras_weights/conv2d_tensorflow_1.h5",
    "keras_weights/conv2d_theano_1.h5",
    "keras_weights/conv2d_theano_2.h5",
    "keras_weights/dense_tensorflow_1.h5",
    "keras_weights/dense_theano_1.h5",
    "keras_weights/dense_theano_2.h5",
    "keras_weights/embedding_conv1d_extended_theano_2.h5",
    "keras_weights/embedding_conv1d_flatten_tensorflow_1.h5",
    "keras_weights/embedding_conv1d_flatten_theano_1.h5",
    "keras_weights/embedding_conv1d_flatten_theano_2.h5",
    "keras_weights/embedding_conv1d_tensorflow_1.h5",
    "keras_weights/embedding_conv1d_theano_1.h5",
    "keras_weights/embedding_conv1d_theano_2.h5",
]


def sample(model: mlferry.MLModel, rng: np.random.Generator, *, indices: int = 0) -> np.ndarray:
    """A random input: numbers, or indices below a bound."""
    shape = tuple(model.get_spec().description.input[0].type.multiArrayType.shape)
    if indices:
        return rng.integers(0, indices, shape).astype(np.float32)
    return rng.uniform(0, 1, shape).astype(np.float32)


def predict(model: mlferry.MLModel, x: np.ndarray) -> np.ndarray:
    """The only output for the only input."""
    description = model.get_spec().description
    return model.predict({description.input[0].name: x})[description.output[0].name]


def close(result: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4 of the output's range (of its size, where it is one number)."""
    assert result.shape == expected.shape
    span = float(np.ptp(expected)) or float(np.abs(expected).max())
    assert np.abs(result - expected).max() <= 1e-4 * span


@pytest.mark.parametrize("name", BY_KERAS)
def test_against_keras(
    name: str, shared_data: Path, library: Library, rng: np.random.Generator
) -> None:
    source = library("tf_keras").models.load_model(shared_data / name, compile=False)
    model = mlferry.convert(shared_data / name)
    x = sample(model, rng, indices=4 if "embedding" in name else 0)
    close(predict(model, x), source(x, training=False).numpy())


@pytest.mark.parametrize("name", BY_LOOPS)
def test_against_loops(name: str, shared_data: Path, rng: np.random.Generator) -> None:
    model = mlferry.convert(shared_data / name)
    x = sample(model, rng, indices=4 if "embedding" in name else 0)
    close(predict(model, x), naive.evaluate(shared_data / name, x))


def test_lambda_of_keras_1(shared_data: Path, rng: np.random.Generator) -> None:
    path = shared_data / "keras/car_behavioral_cloning_lambda.h5"
    with pytest.raises(mlferry.errors.UnsupportedOpError, match="Lambda: lambda_1"):
        mlferry.convert(path)

    def scale(node: Any, builder: Any) -> None:
        params = {"linear": {"alpha": 1 / 127.5, "beta": -1.0}}
        builder.layer("activation", node.name, node.input_names, node.output_names, **params)

    model = mlferry.convert(path, custom_conversion_functions={"Lambda": scale})
    x = 255 * sample(model, rng)
    close(predict(model, x), naive.evaluate(path, x))


UNSUPPORTED = ["space_to_depth"]


def test_the_rest_is_unsupported(shared_data: Path) -> None:
    every = {p.name for p in (shared_data / "keras_weights").glob("*.h5")}
    known = {Path(name).name for name in (*BY_KERAS, *BY_LOOPS)} & every
    rest = sorted(every - known)
    assert len(every) == 52
    assert len(known) == 49
    for name in rest:
        assert any(kind in name for kind in UNSUPPORTED), name
        with pytest.raises(mlferry.errors.UnsupportedOpError):
            mlferry.convert(shared_data / "keras_weights" / name)


# ---- the style networks, with custom layers --------------------------------------------


class InstanceNormalization(mlferry.CustomLayer):
    """Over height and width of [N, H, W, C]."""

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.gamma, self.beta = weights

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        (x,) = inputs
        mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
        root = np.sqrt(variance + self.parameters["epsilon"])
        return [self.gamma * (x - mean) / root + self.beta]


class Deprocess(mlferry.CustomLayer):
    """scale * x + shift, as the network's last layer."""

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        return [self.parameters["scale"] * inputs[0] + self.parameters["shift"]]


def same(shapes: list[Any]) -> list[Any]:
    """The shapes of layers that keep them."""
    return shapes


def instance_normalization(node: Any) -> mlferry.CustomLayerParams:
    return mlferry.CustomLayerParams(
        "InstanceNormalization", "", {"epsilon": node.epsilon}, node.get_weights(), same
    )


def test_style_networks(shared_data: Path, library: Library, rng: np.random.Generator) -> None:
    tf_keras, tf = library("tf_keras"), library("tensorflow")

    class Normalization(tf_keras.layers.Layer):
        def __init__(self, axis: int = -1, epsilon: float = 1e-3, **options: Any) -> None:
            kept = {key: options[key] for key in ("name", "trainable", "dtype") if key in options}
            super().__init__(**kept)
            self.epsilon = epsilon

        def build(self, shape: Any) -> None:
            self.gamma = self.add_weight(name="gamma", shape=(shape[-1],))
            self.beta = self.add_weight(name="beta", shape=(shape[-1],))

        def call(self, x: Any) -> Any:
            mean, variance = tf.nn.moments(x, (1, 2), keepdims=True)
            root = tf.sqrt(variance + self.epsilon)
            return self.gamma * (x - mean) / root + self.beta

    def affine(scale: float, shift: float) -> Any:
        class Affine(tf_keras.layers.Layer):
            def __init__(self, **options: Any) -> None:
                kept = {k: options[k] for k in ("name", "trainable", "dtype") if k in options}
                super().__init__(**kept)

            def call(self, x: Any) -> Any:
                return scale * x + shift

        return Affine

    for name, last, scale, shift in (
        ("faststyle/fst_la_muse.h5", "Lambda", 150.0, 127.5),
        ("keras/fritz_starry_night_256x256_025.h5", "DeprocessStylizedImage", 127.5, 127.5),
    ):
        with pytest.raises(mlferry.errors.UnsupportedOpError) as caught:
            mlferry.convert(shared_data / name)
        assert set(caught.value.ops) == {"InstanceNormalization", last}

        def deprocess(node: Any, a: float = scale, b: float = shift) -> Any:
            return mlferry.CustomLayerParams(
                "Deprocess", "", {"scale": a, "shift": b}, output_shapes=same
            )

        converted = mlferry.convert(
            shared_data / name,
            custom_conversion_functions={
                "InstanceNormalization": instance_normalization,
                last: deprocess,
            },
        )
        model = mlferry.MLModel(
            converted.get_spec(),
            custom_layers={
                "InstanceNormalization": InstanceNormalization,
                "Deprocess": Deprocess,
            },
        )
        known = {"InstanceNormalization": Normalization, last: affine(scale, shift)}
        source = tf_keras.models.load_model(
            shared_data / name, custom_objects=known, compile=False, safe_mode=False
        )
        x = 255 * sample(model, rng)
        close(predict(model, x), source(x, training=False).numpy())


@pytest.mark.parametrize("name", ["stn_mnist_keras2.h5", "stn_mnist_keras3.keras"])
def test_spatial_transformer(name: str, shared_data: Path) -> None:
    folder = shared_data / "stn"

    def sampler(node: Any) -> mlferry.CustomLayerParams:
        height, width = node.output_size
        size = {"height": height, "width": width}
        return mlferry.CustomLayerParams("BilinearInterpolation", "samples", size)

    spec = mlferry.convert(
        folder / name, custom_conversion_functions={"BilinearInterpolation": sampler}
    ).get_spec()
    model = mlferry.MLModel(spec, custom_layers={"BilinearInterpolation": BilinearInterpolation})
    held = np.load(folder / "cluttered_mnist_60x60_test1500.npz")
    images = held["x"].reshape(-1, 1, 60, 60, 1).astype(np.float32) / 255
    inputs, result = spec.description.input[0].name, spec.description.output[0].name
    outputs = model.predict([{inputs: image} for image in images])
    predictions = np.concatenate([output[result] for output in outputs])
    expected = np.load(folder / "test_pred.npy")
    assert np.abs(predictions - expected).max() < 1e-4
    assert round((predictions.argmax(1) == held["y"].ravel()).mean(), 3) == 0.893


class BilinearInterpolation(mlferry.CustomLayer):
    """Weights of the four neighbours come from corners clipped to the image."""

    def output_shapes(self, input_shapes: list[Any]) -> list[Any]:
        (count, _, _, channels), _ = input_shapes
        return [(count, self.parameters["height"], self.parameters["width"], channels)]

    def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        images, thetas = inputs
        _, height, width, _ = images.shape
        rows, columns = self.parameters["height"], self.parameters["width"]
        gx, gy = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows))
        sampled = []
        for image, theta in zip(images, thetas, strict=True):
            a, b, c, d, e, f = theta
            x, y = (a * gx + b * gy + c + 1) / 2 * width, (d * gx + e * gy + f + 1) / 2 * height
            x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
            x1, y1 = np.clip(x0 + 1, 0, width - 1), np.clip(y0 + 1, 0, height - 1)
            x0, y0 = np.clip(x0, 0, width - 1), np.clip(y0, 0, height - 1)
            total = 0.0
            for ys, wy in ((y0, y1 - y), (y1, y - y0)):
                for xs, wx in ((x0, x1 - x), (x1, x - x0)):
                    total = total + (wy * wx)[..., None] * image[ys, xs]
            sampled.append(total)
        return [np.stack(sampled)]
