"""Random layers: their distributions, and what a seed means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.layers.case import Array, network, run

N = 20_000
NORMAL = {"mean": 3.0, "stdDev": 2.0}
UNIFORM = {"minVal": -2.0, "maxVal": 4.0}
BERNOULLI = {"prob": 0.3}
KINDS = {
    "Normal": (NORMAL, 3.0, 2.0),
    "Uniform": (UNIFORM, 1.0, 3**0.5),
    "Bernoulli": (BERNOULLI, 0.3, 0.21**0.5),
}


def draw(kind: str, form: str, seed: int) -> Array:
    params: dict[str, Any] = {**KINDS[kind][0], "seed": seed}
    inputs: list[Any] = []
    if form == "Static":
        params["outputShape"] = (N // 10, 10)
    else:
        inputs = [np.zeros((N // 10, 10)) if form == "Like" else np.array([N // 10, 10])]
    return run(network(f"random{kind}{form}", params, len(inputs), 1), inputs)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["Like", "Static", "Dynamic"])
def test_distribution(kind: str, form: str) -> None:
    _, mean, deviation = KINDS[kind]
    x = draw(kind, form, 7)
    assert x.shape == (N // 10, 10)
    assert x.mean() == pytest.approx(mean, abs=0.06)
    assert x.std() == pytest.approx(deviation, abs=0.06)
    if kind == "Uniform":
        assert -2 <= x.min() < -1.99
        assert 3.99 < x.max() <= 4
    if kind == "Bernoulli":
        assert set(np.unique(x)) == {0, 1}


@pytest.mark.parametrize("kind", KINDS)
def test_seed(kind: str) -> None:
    first = draw(kind, "Static", 7)
    assert (first == draw(kind, "Static", 7)).all()
    assert (first == draw(kind, "Like", 7)).all()
    assert (first != draw(kind, "Static", 8)).any()
    assert (draw(kind, "Static", -1) != draw(kind, "Static", -1)).any()
    draw(kind, "Static", -7)


CHANCES = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_categorical(logits: bool, temperature: float) -> None:
    x = np.log(CHANCES + 1e-10) if logits else CHANCES
    params = {"numSamples": N, "isLogits": logits, "temperature": temperature, "seed": 1}
    y = run(network("categoricalDistribution", params, 1, 1), [x])[0]
    assert y.shape == (2, N)
    expected = CHANCES ** (1 / (temperature or 1.0))
    expected /= expected.sum(axis=1, keepdims=True)
    for row, chances in zip(y, expected, strict=True):
        shares = [(row == k).mean() for k in range(3)]
        np.testing.assert_allclose(shares, chances, atol=0.02)
