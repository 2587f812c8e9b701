"""Real TensorFlow models, TensorFlow itself as the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import mlferry

Library = Callable[[str], Any]


class Real(NamedTuple):
    """A model: its file, and types of inputs that it leaves open."""

    path: str
    inputs: tuple[mlferry.TensorType, ...] = ()
    largest: float = 1.0


SCALAR = mlferry.TensorType(name="keep_prob", shape=())
MODELS = [
    Real("tensorflow/azure_mnist"),
    Real("tensorflow/kws_ref_model"),
    Real("tensorflow/tf2onnx_ae0.pb"),
    Real("tensorflow/tf2onnx_fc-layers.pb"),
    Real("tensorflow/tf2onnx_gru.pb", (SCALAR, mlferry.TensorType(name="X", shape=(1, 784)))),
    Real("tensorflow/tf2onnx_lstm.pb", (SCALAR,)),
    Real("squeezenet/squeezenet_v1.1_frozen.pb", largest=120.0),
    Real("squeezenet/savedmodel", largest=120.0),
    Real("faststyle/fst_la_muse_frozen.pb", largest=255.0),
]


def by_tensorflow(tf: Any, path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    if path.is_dir():
        loaded = tf.saved_model.load(str(path))
        result = loaded.signatures["serving_default"](
            **{name: tf.constant(x) for name, x in inputs.items()}
        )
        return [np.asarray(result[name]) for name in sorted(result)]
    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(path.read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    read = {name.split(":")[0] for node in graph_def.node for name in node.input}
    silent = ("Placeholder", "Const", "NoOp")
    ends = [n.name for n in graph_def.node if n.name not in read and n.op not in silent]
    graph = wrapped.graph
    function = wrapped.prune(
        [graph.get_tensor_by_name(f"{name}:0") for name in inputs],
        [graph.get_tensor_by_name(f"{name}:0") for name in ends],
    )
    return [np.asarray(x) for x in function(*map(tf.constant, inputs.values()))]


@pytest.mark.parametrize("real", MODELS, ids=lambda real: real.path.replace("/", "-"))
def test_real_models(real: Real, shared_data: Path, library: Library) -> None:
    path = shared_data / real.path
    model = mlferry.convert(path, inputs=real.inputs or None)
    rng = np.random.default_rng(3)
    described = model.get_spec().description
    inputs = {
        f.name: rng.uniform(0, real.largest, tuple(f.type.multiArrayType.shape)).astype(np.float32)
        for f in described.input
    }
    if "keep_prob" in inputs:
        inputs["keep_prob"] = np.float32([1.0])
    actual = model.predict(inputs)
    plain = {n: x.reshape(()) if n == "keep_prob" else x for n, x in inputs.items()}
    expected = by_tensorflow(library("tensorflow"), path, plain)
    assert len(actual) == len(expected)
    for got, right in zip(actual.values(), expected, strict=True):
        assert got.shape == (right.shape or (1,))
        assert np.abs(got - right).max() <= 1e-4 * max(float(np.ptp(right)), 1e-6)


def test_one_network_from_four_sources(shared_data: Path) -> None:
    """The h5's pooling drops incomplete windows; the others are one network."""
    x = np.random.default_rng(4).uniform(-120, 130, (1, 227, 227, 3)).astype(np.float32)
    folder = shared_data / "squeezenet"
    matches = []
    for name in ("squeezenet_v1.1_frozen.pb", "savedmodel", "squeezenet_v1.1.h5"):
        model = mlferry.convert(folder / name)
        (feature,) = model.get_spec().description.input
        (result,) = model.predict({feature.name: x}).values()
        matches.append(np.asarray(result).ravel())
    np.testing.assert_allclose(matches[1], matches[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(matches[2], matches[0], rtol=1e-4, atol=1e-6)
