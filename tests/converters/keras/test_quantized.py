"""Models that Keras quantized keep their integers, and give what Keras gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ModelFileError
from mlferry.spec import weights
from tests.converters.keras.test_models import quietly, same_outputs

Library = Callable[[str], Any]
Build = Callable[[Any], Any]


def dense(k: Any) -> Any:
    x = k.layers.Input((200,))
    y = k.layers.Dense(12, activation="relu", name="one")(x)
    return k.Model(x, k.layers.Dense(3, use_bias=False, name="two")(y))


def sequence(k: Any) -> Any:
    x = k.layers.Input((5, 300))
    y = k.layers.Dense(7, name="one")(x)
    y = k.layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de", name="e")(y)
    y = k.layers.Reshape((5, 6))(y)
    return k.Model(x, k.layers.EinsumDense("abc,cd->abd", (5, 4), name="f")(y))


def image(k: Any) -> Any:
    x = k.layers.Input((6, 6, 3))
    y = k.layers.Dense(5, name="each")(k.layers.Conv2D(4, 3, name="c")(x))
    return k.Model(x, k.layers.Dense(3, name="all")(k.layers.Flatten()(y)))


def words(k: Any) -> Any:
    x = k.layers.Input((6,), dtype="int32")
    return k.Model(x, k.layers.Embedding(10, 150, name="table")(x))


def attention(k: Any) -> Any:
    x = k.layers.Input((5, 6))
    return k.Model(x, k.layers.MultiHeadAttention(2, 3, name="heads")(x, x))


BUILDS: list[Build] = [dense, sequence, image, words, attention]


def data_for(model: Any, rng: np.random.Generator) -> np.ndarray:
    shape = (1, *model.inputs[0].shape[1:])
    if "int" in str(model.inputs[0].dtype):
        return rng.integers(0, 10, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_quantized(
    build: Build, mode: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras = library("keras")
    keras.backend.clear_session()
    model = build(keras)
    quietly(lambda: model.quantize(mode))
    data = data_for(model, rng)
    if mode == "int4" and tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
        with pytest.raises(ModelFileError, match="ask"):  # packed in another way then
            mlferry.convert(model)
        return
    converted = mlferry.convert(model)
    same_outputs(converted, model, [data])
    bits = 8 if mode == "int8" else 4
    kept = [w for w in weights.iter_weights(converted.get_spec()) if w.path.endswith("weights")]
    matches = [weights.encoding(w.message) for w in kept if w.kind != "convolution"]
    assert weights.Encoding(weights.LINEAR, bits) in matches
    model.save(tmp_path / "m.keras")
    if build is not attention:  # whose own config does not tell Keras of it
        same_outputs(mlferry.convert(tmp_path / "m.keras"), model, [data])


def test_rounding_of_activations_may_be_dropped(library: Library, rng: np.random.Generator) -> None:
    keras = library("keras")
    model = dense(keras)
    quietly(lambda: model.quantize("int8"))
    data = data_for(model, rng)
    plain = mlferry.convert(model, activation_quantization="drop")
    expected = np.asarray(model(data))
    (actual,) = plain.predict({plain.get_spec().description.input[0].name: data}).values()
    assert 0 < np.abs(actual - expected).max() < 0.05 * np.ptp(expected)
    kinds = [layer.WhichOneof("layer") for layer in plain.get_spec().neuralNetwork.layers]
    assert "round" not in kinds


def test_other_modes_are_refused(library: Library) -> None:
    keras = library("keras")
    model = dense(keras)
    quietly(lambda: model.quantize("float8"))
    with pytest.raises(ModelFileError, match="quantized as 'float8'; int8 and int4 can be read"):
        mlferry.convert(model)
