"""Files are read by another process: what comes back is what TensorFlow here would give."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.tensorflow import handover
from mlferry.converters.tensorflow.evaluation import LocalOperation

X = np.float32([[0.5, -1.0, 2.0, 0.25]])


def constants_of_unknown_size(tf: Any, x: Any) -> Any:
    places = tf.where(tf.constant([1.0, 0.0, 2.0, 3.0]) > 0.5)
    return tf.gather(x, tf.reshape(places, [-1]), axis=1)


def constants_of_many_kinds(tf: Any, x: Any) -> Any:
    halves = tf.cast(tf.constant([0.5, 1.5, 2.5, 3.5], tf.bfloat16), tf.float32)
    whole = tf.cast(tf.unique(tf.constant([3, 3, 1, 2, 9], tf.int64)).y, tf.float32)
    text = tf.strings.length(tf.constant("four"))
    return x * halves + whole * tf.cast(text, tf.float32)


def a_loop(tf: Any, x: Any) -> Any:
    def step(i: Any, y: Any) -> Any:
        return i + 1, tf.cond(i < 3, lambda: tf.tanh(y) + 1.0, lambda: y * tf.constant([[2.0]]))

    return tf.while_loop(lambda i, y: i < 40, step, (0, x))[1]


def a_computed_loop(tf: Any, x: Any) -> Any:
    def step(y: Any) -> Any:
        return (y * tf.constant([[1.0, 2.0, 1.5, 1.25]]),)

    return tf.while_loop(lambda y: tf.reduce_max(y) < 100.0, step, (x,))[0]


def a_computed_condition(tf: Any, x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 1, lambda: x + 1.0, lambda: tf.nn.relu(x))


def a_size_that_is_read(tf: Any, x: Any) -> Any:
    shape = tf.shape(x)
    return tf.reshape(x, tf.stack([shape[1], shape[0]])) + tf.cast(shape[1], tf.float32)


FUNCTIONS: list[Callable[[Any, Any], Any]] = [
    constants_of_unknown_size, constants_of_many_kinds, a_loop, a_computed_loop,
    a_computed_condition, a_size_that_is_read,
]  # fmt: skip


@pytest.mark.parametrize("call", FUNCTIONS, ids=lambda call: call.__name__)
def test_both_ways_give_one_model(
    call: Callable[[Any, Any], Any], library: Callable[[str], Any], tmp_path: Path
) -> None:
    tf = library("tensorflow")
    module = tf.Module()
    module.call = tf.function(lambda x: {"y": call(tf, x)}, autograph=False)
    signature = module.call.get_concrete_function(tf.TensorSpec([1, 4], name="x"))
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signature)
    apart = mlferry.convert(tmp_path / "m")
    with mlferry.limits.changed(isolated=False):
        here = mlferry.convert(tmp_path / "m")
    assert apart.get_spec() == here.get_spec()
    np.testing.assert_allclose(apart.predict({"x": X})["y"], call(tf, tf.constant(X)), rtol=1e-5)


def test_the_process_that_converts_loads_no_tensorflow(
    library: Callable[[str], Any], tmp_path: Path
) -> None:
    tf = library("tensorflow")
    module = tf.Module()
    module.call = tf.function(lambda x: {"y": a_loop(tf, x)}, autograph=False)
    signature = module.call.get_concrete_function(tf.TensorSpec([1, 4], name="x"))
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signature)
    script = (
        "import sys, mlferry\n"
        "mlferry.convert(sys.argv[1]).save(sys.argv[2])\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m"), str(tmp_path / "m.mlmodel")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_arrays_of_every_kind_are_handed_over(library: Callable[[str], Any]) -> None:
    tf = library("tensorflow")
    arrays = [
        *(np.arange(6).reshape(2, 3).astype(kind) for kind in (
            np.bool_, np.int8, np.uint16, np.int64, np.float16, np.float32, np.float64,
            np.complex64, tf.bfloat16.as_numpy_dtype, tf.qint8.as_numpy_dtype,
        )),
        np.zeros((0, 3), np.float32), np.float32(2.5).reshape(()), np.arange(6.0)[::2],
        np.array([[b"a", "\u00e9".encode()]], object), np.array("text", object),
    ]  # fmt: skip
    for array in arrays:
        parts: handover.Parts = []
        fields = json.loads(json.dumps(handover.array_to_json(array, parts)))
        read = handover.array_from_json(fields, [bytes(part) for part in parts])
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
        expected = (
            [b"text"] if array.dtype == object and array.ndim == 0 else array.ravel().tolist()
        )
        assert read.ravel().tolist() == expected


def test_an_operation_apart_from_its_graph_computes_the_same(
    library: Callable[[str], Any],
) -> None:
    tf = library("tensorflow")
    with tf.Graph().as_default() as graph:
        entries = tf.compat.v1.placeholder(tf.float32, [None, 3], "x")
        tf.split(entries, [1, 2], axis=1, name="parts")
        operation = LocalOperation(graph.get_operation_by_name("parts"))
    arrays = [np.float32([[1, 2, 3], [4, 5, 6]]), np.int32([1, 2]), np.int32(1)]
    apart = operation.description()
    assert apart.size is None
    assert operation.size(arrays) == apart.operation(arrays).size(arrays) == 24
    for here, there in zip(
        operation.result(arrays) or (), apart.operation(arrays).result(arrays) or (), strict=True
    ):
        np.testing.assert_array_equal(here, there)
    assert operation.result([*arrays[:2], np.int32(7)]) is None
