"""`Pipeline` and its kin, and the types of features, against coremltools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import SpecError
from mlferry.models import datatypes, pipeline
from mlferry.models.neural_network import NeuralNetworkBuilder
from mlferry.spec.proto import model_pb2

TYPES: list[Callable[[Any], Any]] = [
    lambda t: t.Int64(),
    lambda t: t.Double(),
    lambda t: t.String(),
    lambda t: t.Array(3),
    lambda t: t.Array(3, 4, 5),
    lambda t: t.Dictionary(t.String()),
    lambda t: t.Dictionary(int),
    lambda t: "Double",
    lambda t: int,
    lambda t: float,
    lambda t: str,
]
INPUTS: Callable[[Any], Any] = lambda t: [("x", t.Array(3))]  # noqa: E731
PIPELINES: dict[str, Callable[[Any, Any], Any]] = {
    "pipeline": lambda p, t: p.Pipeline(INPUTS(t), [("y", t.Double())]),
    "regressor": lambda p, t: p.PipelineRegressor(INPUTS(t), [("y", t.Double())]),
    "classifier": lambda p, t: p.PipelineClassifier(INPUTS(t), ["a", "b"]),
    "numbers": lambda p, t: p.PipelineClassifier(INPUTS(t), [1, 2], "digit"),
    "two names": lambda p, t: p.PipelineClassifier(INPUTS(t), ["a", "b"], ["label", "chances"]),
    "pairs": lambda p, t: p.PipelineClassifier(
        INPUTS(t), ["a", "b"], [("label", t.String()), ("chances", t.Dictionary(t.String()))]
    ),
    "label alone": lambda p, t: p.PipelineClassifier(INPUTS(t), ["a", "b"], [("l", t.String())]),
}


@pytest.fixture(scope="module")
def peer() -> Any:
    return pytest.importorskip("coremltools").models


def as_bytes(spec: Any) -> bytes:
    built = model_pb2.Model.FromString(spec.SerializeToString())
    built.ClearField("specificationVersion")
    return built.SerializeToString(deterministic=True)


@pytest.mark.parametrize("index", range(len(TYPES)))
def test_types_of_features(peer: Any, index: int) -> None:
    make = TYPES[index]
    ours = pipeline.Pipeline([("x", make(datatypes))], [("y", datatypes.Double())])
    theirs = peer.pipeline.Pipeline([("x", make(peer.datatypes))], [("y", peer.datatypes.Double())])
    for result in (ours, theirs):  # the peer's is of no kind without a model
        result.spec.pipeline.SetInParent()
    assert as_bytes(ours.spec) == as_bytes(theirs.spec)
    if not isinstance(make(datatypes), str | type):
        assert repr(make(datatypes)) == repr(make(peer.datatypes))
        assert make(datatypes).num_elements == make(peer.datatypes).num_elements
        assert make(datatypes) == make(datatypes)
        assert make(datatypes) != datatypes.Array(7)


def network(**options: Any) -> NeuralNetworkBuilder:
    builder = NeuralNetworkBuilder(
        [("x", datatypes.Array(3))], [("p", datatypes.Array(3))], **options
    )
    builder.add_inner_product(
        "fc", np.eye(3, dtype=np.float32), None, 3, 3, has_bias=False, input_name="x",
        output_name="s",
    )  # fmt: skip
    builder.add_softmax("softmax", "s", "p")
    return builder


@pytest.mark.parametrize("case", PIPELINES)
def test_pipelines(peer: Any, case: str) -> None:
    ours = PIPELINES[case](pipeline, datatypes)
    theirs = PIPELINES[case](peer.pipeline, peer.datatypes)
    step = network().spec
    ours.add_model(step)
    theirs.add_model(type(theirs.spec).FromString(step.SerializeToString()))
    assert as_bytes(ours.spec) == as_bytes(theirs.spec)


def test_a_pipeline_runs() -> None:
    """Scaled by two, then a classifier."""
    first = NeuralNetworkBuilder([("image", datatypes.Array(3))], [("x", datatypes.Array(3))])
    first.add_unary("twice", "image", "x", "power", alpha=1.0, scale=2.0)
    second = network(mode="classifier")
    second.set_class_labels(["a", "b", "c"])
    result = pipeline.PipelineClassifier(
        [("image", datatypes.Array(3))], ["a", "b", "c"], ["classLabel", "p"]
    )
    result.add_model(mlferry.MLModel(first.spec))
    result.add_model(second.spec)
    actual = mlferry.MLModel(result.spec).predict({"image": np.array([0.0, 1.0, 0.5])})
    expected = np.exp([0.0, 2.0, 1.0]) / np.exp([0.0, 2.0, 1.0]).sum()
    assert actual["classLabel"] == "b"
    np.testing.assert_allclose(list(actual["p"].values()), expected, rtol=1e-6)


def test_an_updatable_pipeline() -> None:
    result = pipeline.Pipeline([("x", datatypes.Array(3))], [("p", datatypes.Array(3))])
    result.add_model(network().spec)
    with pytest.raises(
        SpecError, match="the last model of an updatable pipeline must be updatable"
    ):
        result.make_updatable()
    last = network()
    last.make_updatable(["fc"])
    result.add_model(last.spec)
    result.set_training_input([("x", datatypes.Array(3)), ("p_true", datatypes.Array(1))])
    result.make_updatable()
    assert result.spec.isUpdatable
    assert result.spec.specificationVersion == 4
    assert [f.name for f in result.spec.description.trainingInput] == ["x", "p_true"]
    with pytest.raises(SpecError, match="add the models before"):
        result.add_model(network().spec)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no type": (lambda: pipeline.Pipeline([("x", "Single")], []), "'Single' is not a type"),
    "no pair": (lambda: pipeline.Pipeline(["x"], []), "a pair of a name and a type"),
    "no extents": (datatypes.Array, "one extent or more"),
    "extents": (lambda: datatypes.Array(1.5), "are integers"),
    "keys": (lambda: datatypes.Dictionary(float), "Int64 or String"),
    "two numbers": (
        lambda: pipeline.PipelineRegressor([], [("a", float), ("b", float)]), "one output"
    ),
    "no number": (lambda: pipeline.PipelineRegressor([], [("a", str)]), "a Double"),
    "mixed labels": (lambda: pipeline.PipelineClassifier([], ["a", 1]), "all text"),
    "another label": (
        lambda: pipeline.PipelineClassifier([], ["a"], [("l", datatypes.Int64())]),
        "make 'l' a String, not a Int64",
    ),
    "no model": (lambda: pipeline.Pipeline([], []).add_model("a.mlmodel"), "not str"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case: str) -> None:
    act, message = WRONG[case]
    with pytest.raises(SpecError, match=message):
        act()
