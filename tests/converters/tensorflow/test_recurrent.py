"""Recurrent layers of Keras that come through TensorFlow, and loops: right, and weights once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry

Library = Callable[[str], Any]
UNITS, FEATURES = 24, 20

LAYERS: dict[str, Callable[[Any], Any]] = {
    "LSTM": lambda k: k.LSTM(UNITS),
    "LSTM, all steps": lambda k: k.LSTM(UNITS, return_sequences=True),
    "LSTM, states": lambda k: k.LSTM(UNITS, return_sequences=True, return_state=True),
    "LSTM, backwards": lambda k: k.LSTM(UNITS, go_backwards=True, return_sequences=True),
    "both directions, summed": lambda k: k.Bidirectional(k.LSTM(UNITS), merge_mode="sum"),
    "LSTM without bias": lambda k: k.LSTM(UNITS, use_bias=False, activation="relu"),
    "GRU": lambda k: k.GRU(UNITS, return_sequences=True),
    "GRU, states": lambda k: k.GRU(UNITS, return_state=True),
    "GRU, reset before": lambda k: k.GRU(UNITS, reset_after=False, go_backwards=True),
    "SimpleRNN": lambda k: k.SimpleRNN(UNITS, return_sequences=True),
    "both directions": lambda k: k.Bidirectional(k.GRU(UNITS, return_sequences=True)),
    "cells": lambda k: k.RNN([k.LSTMCell(UNITS), k.GRUCell(UNITS)], return_sequences=True),
}  # fmt: skip


def randomized(model: Any) -> None:
    """Biases other than 0."""
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(-0.4, 0.4, w.shape).astype(np.float32)
                       for w in model.get_weights()])  # fmt: skip


def through_tensorflow(keras: Any, call: Callable[[Any], Any], layers: list[Any]) -> Any:
    class Net(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = layers

        def call(self, x: Any) -> Any:
            return call(x)

    return Net()


def compared(model: Any, x: np.ndarray, most: float = 1.1) -> mlferry.MLModel:
    """A model as Keras computes it, with at most so many times its parameters."""
    expected = model(x)
    randomized(model)
    expected = model(x)
    inputs = mlferry.TensorType("x", shape=x.shape)
    converted = mlferry.convert(model, inputs=[inputs])
    expected = [
        np.asarray(y) for y in (expected if isinstance(expected, list | tuple) else [expected])
    ]
    actual = list(converted.predict({"x": x}).values())
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=1e-5)
    assert sum(converted.describe().weights.values()) < most * model.count_params() + 200
    return converted


@pytest.mark.parametrize("steps", [3, 40])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("which", ["keras", "tf_keras"])
def test_a_layer(which: str, name: str, steps: int, library: Library) -> None:
    keras = library(which)
    layer = LAYERS[name](keras.layers)
    x = np.random.default_rng(0).normal(size=(2, steps, FEATURES)).astype(np.float32)
    compared(through_tensorflow(keras, layer, [layer]), x)


@pytest.mark.parametrize("which", ["keras", "tf_keras"])
def test_stacked_and_masked(which: str, library: Library) -> None:
    keras = library(which)
    layers = [keras.layers.Masking(), keras.layers.LSTM(UNITS, return_sequences=True),
              keras.layers.GRU(UNITS, return_sequences=True), keras.layers.LSTM(UNITS)]  # fmt: skip

    def call(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    x = np.random.default_rng(1).normal(size=(2, 12, FEATURES)).astype(np.float32)
    x[0, 7:], x[1, 2:4] = 0, 0
    compared(through_tensorflow(keras, call, layers), x)


@pytest.mark.parametrize("steps", [3, 12])
def test_convolutional(steps: int, library: Library) -> None:
    """The weights of a convolution are a part of its layer."""
    keras = library("keras")
    layer = keras.layers.ConvLSTM2D(6, 3, padding="same")
    x = np.random.default_rng(1).normal(size=(1, steps, 5, 4, 3)).astype(np.float32)
    compared(through_tensorflow(keras, layer, [layer]), x)
