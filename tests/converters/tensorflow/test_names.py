"""Names of inputs and outputs: each is there, unique, and the one that the user means."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.tensorflow.read import feature_names
from mlferry.errors import ConversionError, ModelFileError

tf = pytest.importorskip("tensorflow")
v1 = tf.compat.v1

NAMES: dict[tuple[str, ...], list[str]] = {
    ("a", "b"): ["a", "b"],
    ("a/b", "a_b"): ["a_b_1", "a_b"],
    ("a_b", "a/b", "a:b"): ["a_b", "a_b_1", "a_b_2"],
    ("a/b", "a_b", "a_b_1"): ["a_b_2", "a_b", "a_b_1"],
    ("s", "s:1", "s_1", "s_1:1"): ["s", "s_1_2", "s_1", "s_1_1"],
    ("serving_default_x", "x"): ["x_1", "x"],
    ("x:0",): ["x"],
    ("a", "a"): ["a", "a_1"],
}


@pytest.mark.parametrize("names", NAMES)
def test_feature_names(names: tuple[str, ...]) -> None:
    assert feature_names(names) == NAMES[names]


def graph(build: Callable[[], Any]) -> Any:
    result = tf.Graph()
    with result.as_default():
        build()
    return result.as_graph_def()


def run(definition: Any, outputs: list[str], feeds: dict[str, Any]) -> list[np.ndarray]:
    """What TensorFlow makes."""
    with tf.Graph().as_default() as actual, v1.Session(graph=actual) as session:
        tf.import_graph_def(definition, name="")
        full = [name if ":" in name else f"{name}:0" for name in outputs]
        result: list[np.ndarray] = session.run(full, {f"{k}:0": v for k, v in feeds.items()})
        return result


def x(*shape: int, name: str = "x") -> Any:
    return v1.placeholder(tf.float32, shape, name=name)


def _splits() -> None:
    inputs = x(4)
    tf.split(inputs, 2, name="s")
    tf.split(inputs * 2, 2, name="s_1")


def _scopes() -> None:
    inputs = x(4)
    tf.add(inputs, 1, name="a/b")
    tf.add(inputs, 2, name="a_b")


def _same() -> None:
    inputs = x(4)
    result = tf.add(inputs, 1, name="a")
    tf.identity(result, name="i")
    tf.identity(inputs, name="j")
    tf.add(tf.constant(1.0), 2, name="k")


OUTPUTS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "two splits": (_splits, ["s", "s:1", "s_1", "s_1:1"]),
    "two splits, turned": (_splits, ["s_1:1", "s_1", "s:1", "s"]),
    "scopes": (_scopes, ["a/b", "a_b"]),
    "scopes, turned": (_scopes, ["a_b", "a/b"]),
    "one value several times, a constant, the input": (_same, ["i", "a", "j", "k", "x"]),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name: str) -> None:
    build, outputs = OUTPUTS[name]
    definition, data = graph(build), np.arange(4, dtype=np.float32)
    model = mlferry.convert(definition, outputs=outputs)
    actual = model.predict({"x": data})
    assert len(actual) == len(outputs)
    for plain in set(outputs) & set(actual):
        np.testing.assert_array_equal(actual[plain], run(definition, [plain], {"x": data})[0])
    for got, right in zip(actual.values(), run(definition, outputs, {"x": data}), strict=True):
        np.testing.assert_array_equal(got, right.reshape(got.shape))


def _inputs() -> None:
    first, second = x(1, 2, 2, 3, name="a/b"), x(1, 2, 2, 3, name="a_b")
    tf.subtract(first, second * 10, name="out")


def _inner() -> None:
    """An operation and a constant that are called as the features of inputs."""
    first, second = x(2, name="a/b"), x(2, name="c/d")
    tf.add(tf.multiply(first, 2, name="a_b"), second * tf.constant([3.0, 4.0], name="c_d"),
           name="out")  # fmt: skip


@pytest.mark.parametrize("build", [_inputs, _inner])
def test_inputs(build: Callable[[], None]) -> None:
    definition = graph(build)
    shapes = {n.name: [d.size for d in n.attr["shape"].shape.dim]
              for n in definition.node if n.op == "Placeholder"}  # fmt: skip
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    (right,) = run(definition, ["out"], feeds)
    model = mlferry.convert(definition, outputs=["out"])
    features = feature_names(list(feeds))
    data = dict(zip(features, feeds.values(), strict=True))
    np.testing.assert_allclose(model.predict(data)["out"], right, rtol=1e-6)


@pytest.mark.parametrize(("named", "image"), [("a_b", 1), ("a/b", 0), ("a_b_1", 0), ("a/b:0", 0)])
def test_the_input_that_is_named(named: str, image: int) -> None:
    definition = graph(_inputs)
    if named == "a_b_1":  # the name of the feature; no placeholder has it
        with pytest.raises(ConversionError, match="has no node 'a_b_1'"):
            mlferry.convert(definition, inputs=[mlferry.ImageType(named)], outputs=["out"])
        return
    kinds = [mlferry.ImageType(named), mlferry.TensorType("a/b" if image else "a_b")]
    model = mlferry.convert(definition, inputs=kinds, outputs=["out"])
    matches = [f.type.WhichOneof("Type") for f in model.get_spec().description.input]
    assert matches.index("imageType") == image
    names = [f.name for f in model.get_spec().description.input]
    assert names == ["a_b_1", "a_b"]


def test_what_is_named_twice() -> None:
    definition = graph(_scopes)
    for outputs in (["a/b", "a/b"], ["a/b", "a/b:0"]):
        with pytest.raises(ConversionError, match="named twice"):
            mlferry.convert(definition, outputs=outputs)
    kinds = [mlferry.TensorType("x"), mlferry.TensorType("x")]
    with pytest.raises(ConversionError, match=r"named twice|given twice"):
        mlferry.convert(definition, inputs=kinds, outputs=["a/b"])


def test_classic_names_that_clash() -> None:
    def build() -> None:
        tf.add(x(2, name="a/b"), x(2, name="a__b"), name="out")

    with pytest.raises(ConversionError, match="a__b__0 stands for several tensors"):
        mlferry.converters.tensorflow.convert(
            graph(build), output_feature_names=["out:0"],
            input_name_shape_dict={"a/b:0": [2], "a__b:0": [2]},
        )  # fmt: skip


SIGNATURES = list(itertools.permutations(["Placeholder", "Placeholder_1", "key"], 2))


@pytest.mark.parametrize("keys", SIGNATURES)
def test_keys_of_a_signature(keys: tuple[str, str], tmp_path: Path) -> None:
    """Of TensorFlow 1; some are the names of other placeholders and outputs."""
    folder = str(tmp_path / "m")
    with tf.Graph().as_default(), v1.Session() as session:
        first, second = x(1, 2, name="Placeholder"), x(1, 2, name="Placeholder_1")
        actual = tf.subtract(first, second * 10, name="area")
        other = tf.add(first, second, name="z")
        v1.saved_model.simple_save(
            session, folder, dict(zip(keys, (second, first), strict=True)),
            {"z": actual, "area": other, "copy": actual},
        )  # fmt: skip
    data = {key: np.float32([[k + 1, 5 - k]]) for k, key in enumerate(keys)}
    expected = tf.saved_model.load(folder).signatures["serving_default"](
        **{key: tf.constant(a) for key, a in data.items()}
    )
    model = mlferry.convert(folder)
    assert {f.name for f in model.get_spec().description.input} == set(keys)
    actual = model.predict(data)
    assert set(actual) == {"z", "area", "copy"}
    for name, array in actual.items():
        np.testing.assert_array_equal(array, expected[name])


def test_two_keys_for_one_tensor(tmp_path: Path) -> None:
    folder = str(tmp_path / "m")
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = x(1, 2)
        v1.saved_model.simple_save(session, folder, {"a": inputs, "b": inputs}, {"y": inputs * 2})
    with pytest.raises(ModelFileError, match="more than once"):
        mlferry.convert(folder)


def test_a_function_that_clashes() -> None:
    @tf.function(input_signature=[tf.TensorSpec([2], name="a"), tf.TensorSpec([2], name="b")])
    def function(a: Any, b: Any) -> Any:
        return {"a": a - b, "a_output": a * b, "x/y": a + b, "x_y": b}

    data = {"a": np.float32([1, 2]), "b": np.float32([5, 7])}
    actual = mlferry.convert(function).predict(data)
    right = {"a_output_1": [-4, -5], "a_output": [5, 14], "x_y_1": [6, 9], "x_y": [5, 7]}
    assert {name: array.tolist() for name, array in actual.items()} == right


def test_a_state(tmp_path: Path) -> None:
    class Stateful(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.state = tf.Variable(tf.zeros([1, 3]))

        @tf.function(input_signature=[tf.TensorSpec([1, 3], name="x")])  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            self.state.assign(self.state * 0.5 + x)
            return {"y": tf.identity(self.state)}

    model = Stateful()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.call)
    for source in (tmp_path / "m", model.call):
        with pytest.raises(ConversionError, match="keeps a state between its calls: AssignVar"):
            mlferry.convert(source)
