"""Graphs of TensorFlow 1: conditions, loops, arrays, known values, files as text.

TensorFlow's own session is the oracle.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import limits
from mlferry.errors import ConversionError, ModelFileError, UnsupportedOpError

RNG = np.random.default_rng(3)
VECTOR = np.float32([0.1, 0.2, 0.3])
SERIES = RNG.normal(size=(4, 2, 3)).astype(np.float32)
LONG = RNG.normal(size=(150, 2, 3)).astype(np.float32)
WEIGHTS = (RNG.normal(size=(5, 2)) * 0.5).astype(np.float32)
CUBE = RNG.normal(size=(2, 3, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    return tensorflow


def graph_of(tf: Any, build: Callable[..., Any], x: np.ndarray) -> Any:
    """A GraphDef with control flow of TensorFlow 1, the placeholder "x" and the result "out"."""
    graph = tf.Graph()
    tf.compat.v1.disable_control_flow_v2()
    try:
        with graph.as_default():
            inputs = tf.compat.v1.placeholder(tf.as_dtype(x.dtype), x.shape, name="x")
            tf.identity(build(tf, tf.compat.v1, inputs), name="out")
    finally:
        tf.compat.v1.enable_control_flow_v2()
    return graph.as_graph_def()


def session(tf: Any, graph: Any, x: np.ndarray) -> Any:
    with tf.compat.v1.Session(graph=tf.Graph()) as run:
        tf.import_graph_def(graph, name="")
        return run.run("out:0", {"x:0": x})


def check(tf: Any, graph: Any, x: np.ndarray, source: Any = None) -> mlferry.MLModel:
    model = mlferry.convert(graph if source is None else source, outputs=["out"])
    expected = session(tf, graph, x)
    (actual,) = model.predict({"x": x}).values()
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    return model


def nested(tf: Any, v1: Any, x: Any) -> Any:
    """A condition and a loop in each round of a loop."""

    def body(i: Any, a: Any) -> Any:
        a = v1.cond(tf.reduce_sum(a) > 2.0, lambda: a * 0.5, lambda: a + tf.constant([1.0, 2, 3]))
        _, b = v1.while_loop(
            lambda j, b: j < 2, lambda j, b: (j + 1, b + x * tf.cast(i, tf.float32)), [0, a]
        )
        return i + 1, b

    return v1.while_loop(lambda i, a: i < 5, body, [0, x])[1]


def inner_ways(tf: Any, v1: Any, x: Any) -> Any:
    """A loop one way, another condition the other way."""
    return v1.cond(
        tf.reduce_sum(x) > 0,
        lambda: v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * 2), [0, x])[1],
        lambda: v1.cond(x[0] > -1, lambda: x - 1, lambda: tf.constant([7.0, 8, 9])),
    )


def two_conditions(tf: Any, v1: Any, x: Any) -> Any:
    """Two results of one condition, which another one reads that asks the same."""
    asks = tf.reduce_sum(x) > 0
    a, b = v1.cond(asks, lambda: (x * 2, x + 1), lambda: (x - 1, tf.exp(x)))
    return v1.cond(asks, lambda: a + b, lambda: a * b)


def training(tf: Any, v1: Any, x: Any) -> Any:
    """Statistics by a flag that is False unless it is given."""
    flag = v1.placeholder_with_default(False, [], name="phase_train")
    mean = v1.cond(flag, lambda: tf.reduce_mean(x), lambda: tf.constant(0.5))
    return x - mean


def recurrent(tf: Any, v1: Any, x: Any) -> Any:
    """A recurrent layer over a TensorArray."""
    count = x.shape[0]
    steps = v1.TensorArray(tf.float32, size=count).unstack(x)

    def body(t: Any, h: Any, out: Any) -> Any:
        new = tf.tanh(tf.concat([steps.read(t), h], 1) @ WEIGHTS)
        return t + 1, new, out.write(t, new)

    start = [0, tf.zeros((2, 2)), v1.TensorArray(tf.float32, size=count)]
    return v1.while_loop(lambda t, *_: t < count, body, start)[2].stack()


def parts(tf: Any, v1: Any, x: Any) -> Any:
    array = v1.TensorArray(tf.float32, size=2, infer_shape=False, clear_after_read=False)
    array = array.split(x, [1, 2])
    return array.concat() + array.read(0) * tf.cast(array.size(), tf.float32)


def scattered(tf: Any, v1: Any, x: Any) -> Any:
    array = v1.TensorArray(tf.float32, size=3, clear_after_read=False)
    return array.scatter([2, 0, 1], x).gather([1, 1, 2])


FLOW: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "condition": (
        lambda tf, v1, x: v1.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1),
        [VECTOR, -VECTOR],
    ),
    "known condition": (training, [VECTOR]),
    "inner ways": (inner_ways, [VECTOR, -VECTOR, -9 * VECTOR - 1]),
    "two conditions": (two_conditions, [VECTOR, -VECTOR]),
    "loop": (
        lambda tf, v1, x: v1.while_loop(
            lambda i, a: i < 3, lambda i, a: (i + 1, a * 2 + x), [0, x]
        )[1],
        [VECTOR],
    ),
    "loop of computed rounds": (
        lambda tf, v1, x: v1.while_loop(lambda a: tf.reduce_sum(a) < 100, lambda a: a * 2 + 1, [x])[
            0
        ],
        [VECTOR, 60 * VECTOR],
    ),
    "nested": (nested, [VECTOR]),
    "recurrent": (recurrent, [SERIES]),
    "many steps": (recurrent, [LONG]),
    "parts of an array": (parts, [SERIES[:3]]),
    "scattered": (scattered, [SERIES[:3]]),
    "sum": (lambda tf, v1, x: v1.accumulate_n([x, x * 2, x]), [VECTOR]),
    "rows": (
        lambda tf, v1, x: tf.raw_ops.ParallelConcat(values=[x[:1], x[1:2]], shape=(2, 2, 3)),
        [SERIES],
    ),
}


@pytest.mark.parametrize("name", list(FLOW))
def test_control_flow_of_tensorflow_1(tf: Any, name: str) -> None:
    build, inputs = FLOW[name]
    graph = graph_of(tf, build, inputs[0])
    model = check(tf, graph, inputs[0])
    for x in inputs[1:]:
        (actual,) = model.predict({"x": x}).values()
        np.testing.assert_allclose(actual, session(tf, graph, x), rtol=1e-5, atol=1e-6)


def test_a_computed_condition_is_a_branch(tf: Any) -> None:
    graph = graph_of(tf, FLOW["condition"][0], VECTOR)
    kinds = [x.WhichOneof("layer") for x in mlferry.convert(graph).get_spec().neuralNetwork.layers]
    assert "branch" in kinds
    known = mlferry.convert(graph_of(tf, training, VECTOR)).get_spec().neuralNetwork.layers
    assert {x.WhichOneof("layer") for x in known} <= {"loadConstantND", "subtractBroadcastable"}


def test_many_steps_hold_their_weights_once(tf: Any) -> None:
    short, long = (
        len(mlferry.convert(graph_of(tf, recurrent, x)).get_spec().SerializeToString())
        for x in (LONG[:20], LONG)
    )
    assert long < 1.2 * short + 4 * 150 * 6


def test_a_loose_part_of_a_condition(tf: Any) -> None:
    graph = graph_of(tf, FLOW["condition"][0], VECTOR)
    with pytest.raises(ConversionError, match=r"Switch '.*' is not part of a condition or loop"):
        mlferry.convert(graph, outputs=["cond/mul/Switch:1"])


# ---- known values ----------------------------------------------------------------------


def shape_without(tf: Any, axis: int) -> Any:
    return tf.raw_ops.ListDiff(x=tf.range(3), y=[axis])[0]


KNOWN: dict[str, tuple[Callable[..., Any], np.ndarray]] = {
    "an op without a converter": (
        lambda tf, v1, x: x @ tf.raw_ops.MatrixInverse(input=np.float32([[2, 0, 1], [0, 4, 0],
                                                                         [0, 0, 1]])),
        CUBE[0].T,
    ),
    "two in a row": (
        lambda tf, v1, x: x + tf.raw_ops.BesselI0e(x=tf.raw_ops.BesselI1e(x=np.float32([3, 4, 5]))),
        VECTOR,
    ),
    "inside a loop": (
        lambda tf, v1, x: v1.while_loop(
            lambda i, a: i < 2,
            lambda i, a: (i + 1, a + tf.raw_ops.BesselI0e(x=tf.constant([3.0, 4, 5]))), [0, x]
        )[1],
        VECTOR,
    ),
    "ConcatV2 of a size that depends on values": (
        lambda tf, v1, x: tf.transpose(x, tf.concat([shape_without(tf, 1), [1]], 0)), CUBE
    ),
    "Gather": (
        lambda tf, v1, x: tf.reshape(
            x, tf.concat([tf.gather([2, 3, 4], shape_without(tf, 1)), [3]], 0)
        ),
        CUBE,
    ),
    "Where": (
        lambda tf, v1, x: tf.transpose(x, tf.cast(tf.argsort(-tf.reshape(tf.raw_ops.Where(
            condition=tf.constant([True, False, True, True])), [-1])), tf.int32)),
        CUBE,
    ),
    "Unique": (lambda tf, v1, x: tf.transpose(x, tf.raw_ops.Unique(x=[2, 0, 2, 1])[0] + 0), CUBE),
}  # fmt: skip


@pytest.mark.parametrize("name", list(KNOWN))
@pytest.mark.parametrize("add_custom_layers", [False, True])
def test_known_values_are_computed(tf: Any, name: str, add_custom_layers: bool) -> None:
    build, x = KNOWN[name]
    graph = graph_of(tf, build, x)
    model = mlferry.convert(graph, outputs=["out"], add_custom_layers=add_custom_layers)
    (actual,) = model.predict({"x": x}).values()
    np.testing.assert_allclose(actual, session(tf, graph, x), rtol=1e-5, atol=1e-6)


def test_ops_of_what_is_not_known_are_told_together(tf: Any) -> None:
    graph = graph_of(
        tf, lambda tf, v1, x: tf.raw_ops.BesselI0e(x=x) + tf.raw_ops.BesselI1e(x=x + 1), VECTOR
    )
    with pytest.raises(UnsupportedOpError, match=r"2 TensorFlow ops"):
        mlferry.convert(graph)


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_products_that_float32_cannot_tell(tf: Any, dtype: str) -> None:
    x = np.array([300, 900], dtype)
    with pytest.raises(ConversionError, match=f"Mul of {dtype}: its results overflow"):
        mlferry.convert(graph_of(tf, lambda tf, v1, x: x * x, x))


# ---- sizes that vary, random values ----------------------------------------------------


def test_the_shape_of_an_input_that_varies(tf: Any) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        mean = tf.broadcast_to(tf.reduce_mean(x, 0, keepdims=True), tf.shape(x))
        rest = tf.slice(x, [tf.shape(x)[0] - 1, 0], [1, 4])
        tf.identity(mean - x + rest, name="out")
    kinds = [mlferry.TensorType(name="x", shape=(mlferry.RangeDim(1, 5), 4))]
    model = mlferry.convert(graph.as_graph_def(), inputs=kinds, outputs=["out"])
    for count in (1, 3, 5):
        x = RNG.normal(size=(count, 4)).astype(np.float32)
        np.testing.assert_allclose(
            model.predict({"x": x})["out"], x.mean(0) - x + x[-1:], atol=1e-6
        )


def test_random_values(tf: Any) -> None:
    def build(tf: Any, v1: Any, x: Any) -> Any:
        whole = tf.raw_ops.RandomUniformInt(shape=x, minval=2, maxval=5)
        return tf.cast(whole, tf.float32) + 0 * tf.raw_ops.RandomStandardNormal(
            shape=x, dtype=tf.float32
        )

    shape = np.int32([40, 50])
    (actual,) = mlferry.convert(graph_of(tf, build, shape)).predict({"x": shape}).values()
    assert actual.shape == (40, 50)
    assert [int(n) for n in np.unique(actual)] == [2, 3, 4]


def test_rows_in_random_order(tf: Any) -> None:
    x = np.arange(80, dtype=np.float32).reshape(40, 2)
    graph = graph_of(tf, lambda tf, v1, x: tf.raw_ops.RandomShuffle(value=x), x)
    (actual,) = mlferry.convert(graph).predict({"x": x}).values()
    assert not np.array_equal(actual, x)
    np.testing.assert_array_equal(actual[np.argsort(actual[:, 0])], x)


# ---- files -----------------------------------------------------------------------------


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("start", ["", "# a graph\n\n  "])
def test_a_graph_as_text(tf: Any, tmp_path: Path, start: str, isolated: bool) -> None:
    from google.protobuf import text_format

    graph = graph_of(tf, FLOW["condition"][0], VECTOR)
    path = tmp_path / "net.pbtxt"
    path.write_text(start + text_format.MessageToString(graph))
    with limits.changed(isolated=isolated):
        check(tf, graph, VECTOR, path)


@pytest.mark.parametrize("text", ["node {", "node { name: 3 }", "node {" * 400])
def test_damaged_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.pbtxt"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=r"cut off, damaged, or not a GraphDef"):
        mlferry.convert(path)


def test_a_graph_without_placeholders(tf: Any) -> None:
    graph = tf.Graph()
    with graph.as_default():
        start = tf.constant([[1.0, -2]], name="start")
        tf.abs(tf.reduce_sum(start, 1), name="out")
    message = graph.as_graph_def()
    with pytest.raises(ConversionError, match=r"no placeholder.*'start' \(Const, shape") as result:
        mlferry.convert(message)
    line = str(result.value).split("mlferry.convert(..., ")[1].split(".  ")[0]
    line = line[: line.index(")])") + 2]
    inputs = eval(line.removeprefix("inputs="), {"mlferry": mlferry})
    model = mlferry.convert(message, inputs=inputs)
    (actual,) = model.predict({"start": np.float32([[-3, 4.5]])}).values()
    np.testing.assert_allclose(actual, [1.5])


def test_tensorflow_is_loaded_in_silence(tf: Any, tmp_path: Path) -> None:
    """A user who converts a file sees nothing of TensorFlow's log, and keeps standard error."""
    path = tmp_path / "net.pb"
    path.write_bytes(graph_of(tf, FLOW["loop"][0], VECTOR).SerializeToString())
    lines = (
        "import sys, mlferry",
        "with mlferry.limits.changed(isolated=False): mlferry.convert(sys.argv[1])",
        "print('mine', file=sys.stderr)",
    )
    kept = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(path)], env=kept, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert ran.stderr == "mine\n"
