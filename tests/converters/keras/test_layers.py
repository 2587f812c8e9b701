"""Every Keras converter against Keras 3 and Keras 2 (tf_keras), from memory and from files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.keras.ops import OPS
from tests.converters.keras.cases import CASES, KERAS_2, KERAS_3, Case

Library = Callable[[str], Any]


def build(keras: Any, case: Case, rng: np.random.Generator) -> Any:
    """A model of the one layer, with random weights."""
    keras.backend.clear_session()
    inputs = [
        keras.layers.Input(shape=shape, name=f"in_{index}")
        for index, shape in enumerate(case.shapes)
    ]
    layer = case.make(keras.layers)
    given = inputs if len(inputs) > 1 else inputs[0]
    model = keras.Model(given, layer(given))
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
    made = model.predict(dict(zip(names, data, strict=True)))[name]
    assert made.shape == expected.shape
    assert tuple(description.output[0].type.multiArrayType.shape) == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(made / scale, expected / scale, atol=2e-6, rtol=1e-5)


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
    expected = np.asarray(model(data if len(data) > 1 else data[0], training=False))
    check(mlferry.convert(model), data, expected)
    for suffix in (".h5", ".keras"):
        path = tmp_path / f"model{suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the legacy format
            model.save(path)
        check(mlferry.convert(path), data, expected)


def test_every_registered_op_has_a_case() -> None:
    without = set(OPS) - {case.op for case in CASES}
    assert without == {"threshold"}  # its arguments are required: see test_activations
