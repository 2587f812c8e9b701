"""Whole networks that coremltools writes as programs from TensorFlow: the source's own values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry

ct = pytest.importorskip("coremltools")
tf = pytest.importorskip("tensorflow")
keras = tf.keras
layers = keras.layers

NETS: dict[str, Callable[[], Any]] = {}


def net(make: Callable[[], Any]) -> Callable[[], Any]:
    NETS[make.__name__] = make
    return make


@net
def u_net() -> Any:
    x = keras.Input((32, 48, 3))
    wide = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    low = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPool2D()(wide))
    up = layers.Conv2DTranspose(8, 2, strides=2)(low)
    joined = layers.UpSampling2D(2, interpolation="bilinear")(layers.Concatenate()([wide, up]))
    return keras.Model(x, layers.Conv2D(2, 1, activation="softmax")(joined))


@net
def transformer_encoder() -> Any:
    x = keras.Input((16, 32))
    attended = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
    inner = layers.Dense(64, activation=lambda v: keras.activations.gelu(v, approximate=True))
    return keras.Model(x, layers.LayerNormalization()(attended + layers.Dense(32)(inner(attended))))


@net
def lstm() -> Any:
    x = keras.Input((9, 6))
    hidden = layers.Bidirectional(layers.LSTM(8, return_sequences=True, unroll=True))(x)
    return keras.Model(x, layers.Dense(3)(layers.GRU(5, unroll=True)(hidden)))


@net
def mobile_net() -> Any:
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=10, classifier_activation=None
    )


@net
def residual_net() -> Any:
    x = keras.Input((32, 32, 3))
    y = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        inner = layers.ReLU()(layers.BatchNormalization()(y))
        short = layers.Conv2D(width, 1, strides=stride)(inner)
        inner = layers.Conv2D(width, 3, strides=stride, padding="same")(inner)
        inner = layers.ReLU()(layers.BatchNormalization()(inner))
        y = layers.Add()([short, layers.Conv2D(width, 3, padding="same")(inner)])
    return keras.Model(x, layers.Dense(10)(layers.GlobalAveragePooling2D()(y)))


# What is 0 or 1 everywhere before training.
_RANGES = {"gamma": (0.5, 1.5), "moving_variance": (0.5, 1.5), "beta": (-0.3, 0.3),
           "bias": (-0.3, 0.3), "moving_mean": (-0.3, 0.3)}  # fmt: skip


def source(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """A network with weights that matter everywhere, a sample, and what it makes of it."""
    keras.utils.set_random_seed(3)
    model = NETS[name]()
    random = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            kind = weight.path.rsplit("/", 1)[-1]
            if kind in _RANGES:
                weight.assign(random.uniform(*_RANGES[kind], weight.shape))
    x = random.standard_normal((1, *model.input_shape[1:])).astype(np.float32)
    return model, x, model(x, training=False).numpy()


def written(model: Any, x: np.ndarray, precision: Any) -> Any:
    call = tf.function(lambda data: model(data, training=False))
    concrete = call.get_concrete_function(tf.TensorSpec(x.shape, tf.float32, name="data"))
    return ct.convert(
        [concrete],
        source="tensorflow",
        convert_to="mlprogram",
        compute_precision=precision,
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )


def values(program: Any, path: Path, x: np.ndarray) -> np.ndarray:
    program.save(str(path))
    model = mlferry.MLModel(path)
    (actual,) = model.predict({model.spec.description.input[0].name: x}).values()
    return np.asarray(actual, np.float64)


# coremltools adds 1e-5 of its own to the variances of normalizations that it puts together.
@pytest.mark.parametrize(("precision", "part"), [("FLOAT32", 3e-5), ("FLOAT16", 8e-3)])
@pytest.mark.parametrize("name", NETS)
def test_values_are_those_of_the_source(
    name: str, precision: str, part: float, tmp_path: Path
) -> None:
    model, x, right = source(name)
    got = values(written(model, x, getattr(ct.precision, precision)), tmp_path / "n.mlpackage", x)
    assert np.ptp(right) > 0.05
    np.testing.assert_allclose(got, right, rtol=0, atol=part * np.abs(right).max())


SMALLER: dict[str, Callable[[Any, Any], Any]] = {
    "table of 8 bits": lambda cto, model: cto.palettize_weights(
        model, cto.OptimizationConfig(cto.OpPalettizerConfig("uniform", 8, weight_threshold=0))
    ),
    "table of 4 bits": lambda cto, model: cto.palettize_weights(
        model, cto.OptimizationConfig(cto.OpPalettizerConfig("uniform", 4, weight_threshold=0))
    ),
    "8 bits linear": lambda cto, model: cto.linear_quantize_weights(
        model, cto.OptimizationConfig(cto.OpLinearQuantizerConfig("linear", weight_threshold=0))
    ),
    "half of them 0": lambda cto, model: cto.prune_weights(
        model,
        cto.OptimizationConfig(cto.OpMagnitudePrunerConfig(0.5, weight_threshold=0)),
    ),
}


@pytest.mark.parametrize("kind", SMALLER)
@pytest.mark.parametrize("name", ["residual_net", "transformer_encoder"])
def test_compressed_weights_are_those_that_coremltools_restores(
    name: str, kind: str, tmp_path: Path
) -> None:
    cto = pytest.importorskip("coremltools.optimize.coreml")
    model, x, right = source(name)
    small = SMALLER[kind](cto, written(model, x, ct.precision.FLOAT32))
    got = values(small, tmp_path / "small.mlpackage", x)
    restored = cto.decompress_weights(small)
    expected = values(restored, tmp_path / "whole.mlpackage", x)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(got - right).max() > 1e-6 * np.abs(right).max()
    assert "constexpr" in str(mlferry.MLModel(tmp_path / "small.mlpackage"))
