"""Masks are carried or refused, never ignored."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
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
    (actual,) = mlferry.convert(model).predict({"x": x}).values()
    np.testing.assert_allclose(actual, expected, atol=1e-6)


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
    output = getattr(k.layers, name)()([x, y])
    model = k.Model([words, more], k.layers.LSTM(3, return_sequences=True)(output))
    data = [rng.integers(0, 3, (1, 6)).astype(np.float32) for _ in range(2)]
    expected = np.asarray(model(data))
    converted = mlferry.convert(model)
    names = [feature.name for feature in converted.get_spec().description.input]
    (actual,) = converted.predict(dict(zip(names, data, strict=True))).values()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


# ---- layers of a user's own ------------------------------------------------------------


@pytest.fixture(autouse=True)
def _classes() -> None:
    mlferry.register_custom_layer("MaskedMean")(MaskedMean)
    mlferry.register_custom_layer("Twice")(Twice)


class MaskedMean(mlferry.CustomLayer):
    """The mean over the steps that count."""

    def output_shapes(self, input_shapes: Any) -> Any:
        return [(input_shapes[0][0], input_shapes[0][2])]

    def evaluate(self, inputs: Any) -> Any:
        x, *masks = inputs
        kept = masks[0][..., None] if masks else np.ones((*x.shape[:2], 1), np.float32)
        return [(x * kept).sum(1) / kept.sum(1)]


class Twice(mlferry.CustomLayer):
    """2 x."""

    def evaluate(self, inputs: Any) -> Any:
        return [2 * inputs[0]]


def users_layers(k: Any, tf: Any) -> tuple[Any, Any]:
    class MaskedMean(k.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any, mask: Any = None) -> Any:
            kept = tf.ones_like(x[..., :1]) if mask is None else tf.cast(mask, x.dtype)[..., None]
            return tf.reduce_sum(x * kept, 1) / tf.reduce_sum(kept, 1)

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return None

    class Twice(k.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.supports_masking = True

        def call(self, x: Any) -> Any:
            return 2 * x

    return MaskedMean, Twice


def params(name: str, **told: Any) -> Any:
    return lambda node: mlferry.CustomLayerParams(name, **told)


COMPUTES, PASSES = "computes", "passes on"
TOLD = {
    "MaskedMean": params("MaskedMean", takes_mask=True, passes_mask=False),
    "Twice": params("Twice", takes_mask=False, passes_mask=True),
}
UNTOLD = {"MaskedMean": params("MaskedMean"), "Twice": params("Twice")}


def with_users_layer(k: Any, tf: Any, what: str, kind: str) -> Any:
    mean, twice = users_layers(k, tf)
    tail = [mean()] if what == COMPUTES else [twice(), k.layers.LSTM(3)]
    ids = k.layers.Input((5,), dtype="int32", name="ids")
    chain = [k.layers.Embedding(9, 4, mask_zero=True), *tail]
    if kind == "Sequential":
        first = k.layers.InputLayer((5,), dtype="int32", name="ids")
        return k.Sequential([ids if k.__name__ == "keras" else first, *chain])
    x = ids
    if kind == "behind a Sequential":
        steps = [k.layers.Input((5, 4)), k.layers.LSTM(4, return_sequences=True)]
        chain.insert(1, k.Sequential(steps))
    for layer in chain:
        x = layer(x)
    return k.Model(ids, x)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("what", [COMPUTES, PASSES])
@pytest.mark.parametrize("kind", ["Sequential", "functional", "behind a Sequential"])
@pytest.mark.filterwarnings("ignore")  # of Keras, that masks are destroyed
def test_users_layers(
    kind: str, what: str, keras_name: str, library: Library, tmp_path: Path
) -> None:
    """An object in memory tells what it does with masks; of a file the function is asked."""
    k = library(keras_name)
    model = with_users_layer(k, library("tensorflow"), what, kind)
    ids = np.array([[1, 2, 3, 0, 0], [0, 4, 0, 5, 6]], np.int32)
    paths = [tmp_path / "m.keras", tmp_path / "m.h5"]
    for path in paths:
        model.save(path)
    for source, functions in [(model, UNTOLD), (model, TOLD), *((path, TOLD) for path in paths)]:
        converted = mlferry.convert(source, custom_conversion_functions=functions)
        for row in ids:
            expected = np.asarray(model(row[None]))
            (actual,) = converted.predict({"ids": row[None]}).values()
            np.testing.assert_allclose(actual, expected, atol=1e-5)
    if keras_name == "keras" and kind == "functional":  # the config lists the masks
        mlferry.convert(paths[0], custom_conversion_functions=UNTOLD)
        return
    with pytest.raises(ConversionError, match="does not tell whether the layer computes with it"):
        mlferry.convert(paths[0], custom_conversion_functions=UNTOLD)


@pytest.mark.filterwarnings("ignore")  # of Keras, of its own format
def test_who_reads_a_mask_behind_an_untold_layer_says_so(library: Library, tmp_path: Path) -> None:
    k = library("tf_keras")
    model = with_users_layer(k, library("tensorflow"), PASSES, "functional")
    model.save(tmp_path / "m.h5")
    functions = {"Twice": params("Twice", takes_mask=False)}
    with pytest.raises(ConversionError, match=r"comes through Twice[\s\S]*passes_mask=True"):
        mlferry.convert(tmp_path / "m.h5", custom_conversion_functions=functions)


def test_a_composed_function_gets_the_names_of_masks(library: Library) -> None:
    k = library("keras")
    seen = []

    def compose(node: Any, builder: Any) -> None:
        seen.append(node.mask_names)
        builder.layer(
            "activation", node.name, node.input_names, node.output_names, linear={"alpha": 2.0}
        )

    model = with_users_layer(k, library("tensorflow"), PASSES, "functional")
    mlferry.convert(model, custom_conversion_functions={"Twice": compose})
    model = text_model(k, k.layers.LSTM(3))
    mlferry.convert(model, custom_conversion_functions={"LSTM": compose})
    assert [len(names) for names in seen] == [0, 1]
