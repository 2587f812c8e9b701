"""Constants for each channel join the layer before them, where nothing else reads its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry

RNG = np.random.default_rng(4)
W = RNG.normal(size=(4, 6)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 2, 6)).astype(np.float32)
B = RNG.normal(size=6).astype(np.float32) + 2


def tf() -> Any:
    tensorflow = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    return tensorflow


Net = Callable[[Any], dict[str, Any]]
ONE, TWO = ["innerProduct"], ["innerProduct", "activation"]
SEPARATE = ["innerProduct", "loadConstantND", "addBroadcastable", "activation"]

# What a product h of x makes, and the kinds of layers; other names of a value change nothing.
ROWS: dict[str, tuple[Callable[[Any, Any], dict[str, Any]], list[str]]] = {
    "a bias": (lambda t, h: {"y": t.nn.bias_add(h, B)}, ONE),
    "a bias, then a factor": (lambda t, h: {"y": (h + B) * B}, ONE),
    "under another name": (lambda t, h: {"y": t.identity(h) + B}, ONE),
    "read twice": (lambda t, h: {"y": h + B, "z": t.nn.relu(h)}, SEPARATE),
    "another name is read": (
        lambda t, h: {"y": h + B, "z": t.nn.relu(t.identity(h))}, SEPARATE,
    ),
    "the first name is read": (
        lambda t, h: {"y": t.identity(h) + B, "z": t.nn.relu(h)}, SEPARATE,
    ),
    "without a gradient": (
        lambda t, h: {"y": t.nn.bias_add(t.stop_gradient(h), B), "z": t.nn.relu(h)}, SEPARATE,
    ),
    "a reshape that changes nothing": (
        lambda t, h: {"y": t.reshape(h, (3, 6)) + B, "z": t.nn.relu(h)}, SEPARATE,
    ),
    "read afterwards": (lambda t, h: {"y": t.nn.relu(h + B)}, TWO),
}  # fmt: skip


def check(net: Callable[[Any], dict[str, Any]], x: np.ndarray[Any, Any], kinds: list[str]) -> None:
    """Convert a function, and compare its values with TensorFlow's."""
    t = tf()
    function = t.function(net).get_concrete_function(t.TensorSpec(x.shape, t.float32, name="x"))
    expected = {name: value.numpy() for name, value in function(t.constant(x)).items()}
    model = mlferry.convert(function)
    assert sorted(_kinds(model)) == sorted(kinds)
    actual = model.predict({"x": x})
    outputs = [feature.name for feature in model.spec.description.output]
    for name, array in zip(outputs, (expected[key] for key in sorted(expected)), strict=True):
        np.testing.assert_allclose(actual[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def _kinds(model: mlferry.MLModel) -> list[str]:
    return [layer.WhichOneof("layer") or "" for layer in model.spec.neuralNetwork.layers]


@pytest.mark.parametrize("name", ROWS)
def test_what_joins_a_product(name: str) -> None:
    make, kinds = ROWS[name]
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    check(lambda x: make(tf(), tf().matmul(x, W)), x, kinds)


@pytest.mark.parametrize("add", ["bias_add", "+"])
def test_what_joins_a_convolution(add: str) -> None:
    def net(x: Any) -> dict[str, Any]:
        h = tf().nn.conv2d(x, KERNEL, 1, "SAME")
        return {"y": tf().nn.bias_add(h, B) if add == "bias_add" else h + B}

    x = RNG.normal(size=(1, 5, 6, 2)).astype(np.float32)
    t = tf()
    function = t.function(net).get_concrete_function(t.TensorSpec(x.shape, t.float32, name="x"))
    model = mlferry.convert(function)
    assert _kinds(model).count("convolution") == 1
    assert "addBroadcastable" not in _kinds(model)
    (actual,) = model.predict({"x": x}).values()
    np.testing.assert_allclose(actual, function(t.constant(x))["y"], rtol=1e-5, atol=1e-5)
