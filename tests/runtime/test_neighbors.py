"""Nearest neighbours beside scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError
from mlferry.layers.validate import validate
from mlferry.runtime.evaluators import neighbors
from mlferry.spec import features as ft
from mlferry.spec.fields import fill
from mlferry.spec.proto import model_pb2
from tests.oracles import oracle

KNeighborsClassifier = oracle("sklearn.neighbors").KNeighborsClassifier
RANDOM = np.random.default_rng(5)
SAMPLES = RANDOM.normal(size=(60, 3)).astype(np.float32)
LABELS = [str(label) for label in RANDOM.choice(["ash", "elm", "oak"], 60)]
NEW = np.concatenate([RANDOM.normal(size=(60, 3)).astype(np.float32), SAMPLES[:5]])
INDEXES = {"linear": {"linearIndex": {}}, "k-d tree": {"singleKdTreeIndex": {"leafSize": 7}}}
RANGE = {"range": {"minValue": 1, "maxValue": 100}}


def build(labels: Any = LABELS, samples: Any = SAMPLES, *, chances: bool = True, k: int = 5,
          **params: Any) -> model_pb2.Model:  # fmt: skip
    spec = model_pb2.Model(specificationVersion=4)
    strings = not labels or isinstance(labels[0], str)
    index = {"numberOfDimensions": 3, "squaredEuclideanDistance": {},
             "floatSamples": [{"vector": row.tolist()} for row in samples],
             **params.pop("index", INDEXES["linear"])}  # fmt: skip
    inputs = {"nearestNeighborsIndex": index, "uniformWeighting": {},
             "numberOfNeighbors": {"defaultValue": k, **RANGE}}  # fmt: skip
    if "inverseDistanceWeighting" in params:
        del inputs["uniformWeighting"]
    if labels:
        inputs["stringClassLabels" if strings else "int64ClassLabels"] = {"vector": list(labels)}
    fill(spec.kNearestNeighborsClassifier, inputs | params)
    spec.description.input.add(name="x").type.CopyFrom(ft.multi_array((3,), "float32"))
    spec.description.output.add(name="y").type.CopyFrom(ft.string() if strings else ft.int64())
    spec.description.predictedFeatureName = "y"
    if chances:
        spec.description.output.add(name="p").type.CopyFrom(ft.dictionary(strings))
        spec.description.predictedProbabilitiesName = "p"
    return spec


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("weighting", ["uniform", "inverse"])
@pytest.mark.parametrize("k", [1, 2, 5, 11, 60])
@pytest.mark.parametrize("strings", [True, False])
def test_values(index: str, weighting: str, k: int, strings: bool) -> None:
    labels: Any = LABELS if strings else [len(label) * ord(label[0]) for label in LABELS]
    params = {} if weighting == "uniform" else {"inverseDistanceWeighting": {}}
    spec = build(labels, index=INDEXES[index], k=k, **params)
    assert validate(spec) == []
    # the format's distance is the squared one
    weights: Any = "uniform" if weighting == "uniform" else _inverse_squares
    estimator = KNeighborsClassifier(k, weights=weights).fit(SAMPLES.astype(float), labels)
    actual = mlferry.MLModel(spec).predict([{"x": row} for row in NEW])
    assert [row["y"] for row in actual] == estimator.predict(NEW.astype(float)).tolist()
    matches = [[row["p"][label] for label in estimator.classes_] for row in actual]
    np.testing.assert_allclose(matches, estimator.predict_proba(NEW.astype(float)), atol=1e-9)


def _inverse_squares(distances: np.ndarray) -> np.ndarray:
    weights = 1 / np.maximum(distances, 1e-9) ** 2
    here = (distances == 0).any(axis=1, keepdims=True)
    return np.where(here, distances == 0, weights)


def test_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "_AT_ONCE", 20)
    test_values("linear", "inverse", 5, strings=True)


def test_more_neighbours_than_samples_are_all() -> None:
    actual = mlferry.MLModel(build(k=2**62)).predict({"x": [0, 0, 0]})
    shares = {label: LABELS.count(label) / 60 for label in sorted(set(LABELS))}
    assert actual["p"] == pytest.approx(shares)


def test_without_samples_the_default_is_predicted() -> None:
    spec = build([], [], chances=False, defaultStringLabel="none")
    assert validate(spec) == []
    assert mlferry.MLModel(spec).predict({"x": [0, 0, 0]}) == {"y": "none"}


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (build(), [np.nan, 0, 0], "NaN and infinity"),
        (build([], [], defaultStringLabel="none"), [0, 0, 0], "its default label is 'none'"),
        (build(np.array(LABELS[:9]).tolist(), SAMPLES[:9] * np.inf), [0, 0, 0], "finite"),
    ],
    ids=["NaN", "no probabilities", "infinite samples"],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_has_no_answer(spec: model_pb2.Model, value: Any, message: str) -> None:
    with pytest.raises(MlferryError, match=message):
        mlferry.MLModel(spec).predict({"x": value})
