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


def test_a_layer_that_computes_with_a_mask_is_refused(library: Library) -> None:
    k = library("keras")
    tail = [k.layers.Dense(3), k.layers.Activation("relu"), k.layers.GlobalAveragePooling1D()]
    with pytest.raises(ConversionError, match="mask of='words'"):
        mlferry.convert(text_model(k, *tail))
    mlferry.convert(text_model(k, *tail, mask=False))


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
