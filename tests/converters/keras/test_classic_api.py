"""`mlferry.converters.keras.convert`: notebooks of 2018 port by changing their imports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.keras import convert
from mlferry.errors import ConversionError

Library = Callable[[str], Any]


@pytest.fixture
def model(library: Library) -> Any:
    k = library("keras")
    k.backend.clear_session()
    return k.Sequential(
        [
            k.layers.Input((5, 4, 3), name="keras_input"),
            k.layers.Conv2D(2, 3, activation="relu"),
            k.layers.Flatten(),
            k.layers.Dense(3, activation="softmax"),
        ]
    )


def test_names_and_preprocessing(model: Any, rng: np.random.Generator) -> None:
    converted = convert(
        model,
        input_names="image",
        output_names="chances",
        image_input_names="image",
        is_bgr=True,
        red_bias=-123,
        green_bias=-117,
        blue_bias=-104,
        image_scale=2.0,
    )
    pixels = rng.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    seen = pixels[..., ::-1].astype(np.float32) * 2 - [104, 117, 123]
    actual = converted.predict({"image": pixels})["chances"]
    np.testing.assert_allclose(actual, model(seen[None].astype(np.float32)), atol=1e-5)


def test_defaults(model: Any) -> None:
    description = convert(model).get_spec().description
    assert [f.name for f in description.input] == ["input1"]
    assert [f.name for f in description.output] == ["output1"]


def test_class_labels(model: Any) -> None:
    converted = convert(model, class_labels=["a", "b", "c"], predicted_feature_name="label")
    actual = converted.predict({"input1": np.zeros((1, 5, 4, 3))})
    assert set(actual) == {"output1", "label"}
    assert set(actual["output1"]) == {"a", "b", "c"}


def test_custom_layers_are_channels_first(library: Library) -> None:
    k = library("keras")

    class Mine(k.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    model = k.Sequential([k.layers.Input((5, 4, 3)), k.layers.Conv2D(2, 1), Mine(name="mine")])
    functions = {"Mine": lambda layer: mlferry.CustomLayerParams("Mine")}
    seen = []

    class MineLayer(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            seen.append(inputs[0].shape)
            return inputs

    spec = convert(model, custom_conversion_functions=functions).get_spec()
    loaded = mlferry.MLModel(spec, custom_layers={"Mine": MineLayer})
    loaded.predict({"input1": np.zeros((1, 5, 4, 3))})
    assert seen == [(1, 2, 5, 4)]


WRONG = [
    ({"input_names": ["a", "b"]}, "2 input_names"),
    ({"image_input_names": "img"}, "no input 'img'"),
    ({"input_name_shape_dict": {"img": [1, 5, 4, 3]}}, "no input 'img'"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        convert(model, **arguments)
