"""Every Keras converter against Keras 3 and Keras 2 (tf_keras), from memory and from files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.keras.ops import OPS
from tests.converters.keras.cases import (
    AUGMENTATIONS,
    CASES,
    IMAGE,
    KERAS_2,
    KERAS_3,
    Case,
    row,
    skip_if_older,
)
from tests.converters.keras.test_models import oracle

Library = Callable[[str], Any]


def build(keras: Any, case: Case, rng: np.random.Generator) -> Any:
    """A model of the one layer, with random weights."""
    keras.backend.clear_session()
    inputs = [
        keras.layers.Input(shape=shape, name=f"in_{index}")
        for index, shape in enumerate(case.shapes)
    ]
    try:
        layer = case.make(keras.layers)
    except AttributeError as error:
        skip_if_older(keras, error)
        raise
    sample = inputs if len(inputs) > 1 else inputs[0]
    model = keras.Model(sample, layer(sample))
    model.set_weights([_random(array, rng) for array in model.get_weights()])
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()  # Normalization of Keras 3 keeps what it computes of its weights
    return model


def _random(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positive, so that it can be a variance; large enough to matter."""
    return rng.uniform(0.2, 1.0, array.shape).astype(array.dtype)


def samples(case: Case, rng: np.random.Generator) -> list[np.ndarray]:
    """One sample an input, of one batch."""
    if case.integers:
        return [rng.integers(0, 10, (1, *shape)).astype(np.float32) for shape in case.shapes]
    return [rng.normal(0, case.spread, (1, *shape)).astype(np.float32) for shape in case.shapes]


def check(model: mlferry.MLModel, data: Sequence[np.ndarray], expected: np.ndarray) -> None:
    """The converted model gives what Keras gives: values, shape and described shape."""
    description = model.get_spec().description
    names = [feature.name for feature in description.input]
    (name,) = [feature.name for feature in description.output]
    actual = model.predict(dict(zip(names, data, strict=True)))[name]
    assert actual.shape == expected.shape
    assert tuple(description.output[0].type.multiArrayType.shape) == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual / scale, expected / scale, atol=2e-6, rtol=1e-5)


PAIRS = [
    pytest.param(case, keras, id=f"{keras}-{index}-{case.label}")
    for index, case in enumerate(CASES)
    for keras in ((KERAS_3, KERAS_2) if case.only is None else (case.only,))
]


@pytest.mark.parametrize(("case", "keras_name"), PAIRS)
def test_layer(
    case: Case, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras = library(keras_name)
    model = build(keras, case, rng)
    data = samples(case, rng)
    source = oracle(model, case.shapes[0])
    expected = np.asarray(source(data if len(data) > 1 else data[0], training=False))
    check(mlferry.convert(model), data, expected)
    layer = model.layers[-1]
    lost = getattr(layer, "output_padding", None) is not None
    if lost and "output_padding" not in layer.get_config():
        return  # older files have lost it, for Keras, too
    for suffix in (".h5", ".keras"):
        path = tmp_path / f"model{suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the legacy format
            model.save(path)
        check(mlferry.convert(path), data, expected)


def test_an_option_that_older_configs_leave_out(
    library: Library, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Keras 3.12 does: a model in memory still knows it."""
    keras = library("keras")
    whole = keras.layers.Conv2DTranspose.get_config

    def older(layer: Any) -> dict[str, Any]:
        return {key: value for key, value in whole(layer).items() if key != "output_padding"}

    monkeypatch.setattr(keras.layers.Conv2DTranspose, "get_config", older)
    case = row("Conv2DTranspose", lambda k: k.Conv2DTranspose(5, 3, 2, output_padding=1), IMAGE)
    model = build(keras, case, rng)
    data = samples(case, rng)
    check(mlferry.convert(model), data, np.asarray(model(data[0], training=False)))


def test_every_registered_op_has_a_case() -> None:
    layers = {name for name in OPS if not name.startswith(("keras.ops.", "tf."))}
    without = layers - {case.op for case in CASES} - set(AUGMENTATIONS)
    # what needs arguments, or several of them: see test_functions, test_attention, test_nested;
    # what only Keras 2 has: see test_keras_2, test_tensorflow_ops
    assert without == {
        "StochasticDepth", "LayerScale", "CustomScaleLayer", "threshold",
        "MultiHeadAttention", "GroupedQueryAttention", "Model.masks",
        "LocallyConnected1D", "LocallyConnected2D", "TensorFlowOpLayer",
    }  # fmt: skip


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_changes_images_in_training_only(
    name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    """From a config, as some of them cannot be called on symbolic inputs."""
    keras = library("keras")
    keras.backend.clear_session()
    layer = getattr(keras.layers, name)(*AUGMENTATIONS[name], name="it")
    model = keras.Sequential([keras.layers.Input((7, 6, 3)), keras.layers.Identity(name="it")])
    model.save_weights(tmp_path / "m.weights.h5")
    config = json.loads(model.to_json())
    entry = config["config"]["layers"][-1]
    entry |= {"class_name": name, "config": keras.saving.serialize_keras_object(layer)["config"]}
    (tmp_path / "m.json").write_text(json.dumps(config))
    converted = mlferry.convert((tmp_path / "m.json", tmp_path / "m.weights.h5"))
    x = rng.uniform(0, 255, (1, 7, 6, 3)).astype(np.float32)
    expected = layer(x.copy(), training=False)
    (actual,) = converted.predict({converted.get_spec().description.input[0].name: x}).values()
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=1e-6)


def test_the_old_root_mean_square(library: Library, rng: np.random.Generator) -> None:
    """It divides by the deviation and leaves the mean, as Keras itself warns."""
    keras = library("keras")
    data = [rng.normal(size=(1, 9, 4)).astype(np.float32)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = keras.layers.LayerNormalization(rms_scaling=True)
        model = keras.Sequential([keras.layers.Input((9, 4)), layer])
        expected = np.asarray(model(data[0]))
    check(mlferry.convert(model), data, expected)
