"""Masks are carried or refused, never ignored."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError

Library = Callable[[str], Any]


def text_model(keras: Any, *tail: Any, mask: bool = True) -> Any:
    embedding = keras.layers.Embedding(10, 4, mask_zero=mask, name="words")
    return keras.Sequential([keras.layers.Input((6,), name="x"), embedding, *tail])


def test_a_mask_that_cannot_be_carried_is_refused(library: Library) -> None:
    k = library("tf_keras")
    words, more = k.layers.Input((6,)), k.layers.Input((2, 1))
    x = k.layers.Embedding(10, 1, mask_zero=True, name="words")(words)
    y = k.layers.Activation("relu")(k.layers.Concatenate(axis=1)([x, more]))
    message = "a Concatenate of masked and unmasked inputs along time"
    mlferry.convert(k.Model([words, more], y))
    with pytest.raises(ConversionError, match=message):
        mlferry.convert(k.Model([words, more], k.layers.GRU(3)(y)))


def test_a_custom_function_gets_the_mask(library: Library) -> None:
    k = library("keras")
    seen = []

    def lstm(node: Any) -> mlferry.CustomLayerParams:
        seen.append((node.has_mask, node.masks))
        return mlferry.CustomLayerParams("LSTM", output_shapes=[(1, 3)])

    model = text_model(k, k.layers.Dense(3), k.layers.LSTM(3))
    converted = mlferry.convert(model, custom_conversion_functions={"LSTM": lstm})
    assert repr(seen) == "[(True, ['words'])]"
    layers = converted.get_spec().neuralNetwork.layers
    (layer,) = [item for item in layers if item.WhichOneof("layer") == "custom"]
    assert len(layer.input) == 2


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_a_mask_that_nobody_reads_changes_nothing(
    keras_name: str, library: Library, rng: np.random.Generator
) -> None:
    k = library(keras_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that the mask is destroyed
        model = text_model(k, k.layers.GlobalMaxPooling1D(), k.layers.Dense(2))
        x = rng.integers(0, 3, (1, 6)).astype(np.float32)
        expected = np.asarray(model(x))
    (made,) = mlferry.convert(model).predict({"x": x}).values()
    np.testing.assert_allclose(made, expected, atol=1e-6)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", ["Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract"])
def test_merges_of_masked_inputs(
    name: str, both: bool, keras_name: str, library: Library, rng: np.random.Generator
) -> None:
    """Keras 3 leaves masked values out of products and extremes, Keras 2 does not."""
    k = library(keras_name)
    words, more = k.layers.Input((6,), dtype="int32"), k.layers.Input((6,), dtype="int32")
    x = k.layers.Embedding(10, 4, mask_zero=True)(words)
    y = k.layers.Embedding(10, 4, mask_zero=both)(more)
    made = getattr(k.layers, name)()([x, y])
    model = k.Model([words, more], k.layers.LSTM(3, return_sequences=True)(made))
    data = [rng.integers(0, 3, (1, 6)).astype(np.float32) for _ in range(2)]
    expected = np.asarray(model(data))
    converted = mlferry.convert(model)
    names = [feature.name for feature in converted.get_spec().description.input]
    (found,) = converted.predict(dict(zip(names, data, strict=True))).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)
