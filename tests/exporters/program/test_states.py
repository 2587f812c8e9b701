"""States: what a network hands on from one prediction to the next, kept by the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError
from mlferry.spec import features
from tests.exporters.program.support import (
    checked,
    kinds,
    network_of,
    read_by_coremltools,
)
from tests.layers.naive import values as some

ENGINES = ("numpy", "onnxruntime")


def lstm(layers: Any) -> Any:
    return layers.LSTM(6, stateful=True)


def gru(layers: Any) -> Any:
    return layers.GRU(6, stateful=True, return_sequences=True)


def simple(layers: Any) -> Any:
    return layers.SimpleRNN(6, stateful=True)


STATEFUL: dict[str, tuple[Callable[[Any], Any], int]] = {
    "lstm": (lstm, 2), "gru": (gru, 1), "simple": (simple, 1),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", STATEFUL)
def test_stateful_keras(
    name: str, engine: str, tmp_path: Path, library: Callable[[str], Any]
) -> None:
    keras = library("keras")
    keras.utils.set_random_seed(1)
    make, states = STATEFUL[name]
    x = keras.Input(batch_shape=(1, 5, 4))
    model = keras.Model(x, keras.layers.Dense(3)(make(keras.layers)(x)))
    samples = some(4, 1, 5, 4)
    right = [np.asarray(model(sample)) for sample in samples]
    program = checked(mlferry.convert(model, convert_to="mlprogram", states=True))
    assert kinds(program.spec).count("read_state") == states
    assert str(program).count(": state float16 1 x 6") == states
    assert program.spec.specificationVersion == 9
    read_by_coremltools(program, tmp_path)
    again = mlferry.MLModel(tmp_path / "model.mlpackage", engine=engine)
    (inputs,) = (f.name for f in again.spec.description.input)
    (out,) = (f.name for f in again.spec.description.output)
    for _ in range(2):  # each state begins anew
        state = again.make_state()
        for sample, expected in zip(samples, right, strict=True):
            actual = again.predict({inputs: sample}, state)[out]
            np.testing.assert_allclose(actual.reshape(expected.shape), expected, atol=5e-3)


def decoder_step() -> Any:
    """One head of attention over a cache of eight positions, the newest of which comes last."""
    from onnx import TensorProto, helper as h, numpy_helper

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(some(*shape, seed=len(name)) / 2, name)

    nodes = []
    for name in ("key", "value"):
        nodes += [
            h.make_node("MatMul", ["x", f"w_{name}"], [f"new_{name}"]),
            h.make_node("Concat", [f"past_{name}", f"new_{name}"], [f"long_{name}"], axis=1),
            h.make_node("Slice", [f"long_{name}", "one", "end", "axis"], [f"present_{name}"]),
        ]
    nodes += [
        h.make_node("MatMul", ["x", "w_q"], ["query"]),
        h.make_node("Transpose", ["present_key"], ["turned"], perm=[0, 2, 1]),
        h.make_node("MatMul", ["query", "turned"], ["scores"]),
        h.make_node("Softmax", ["scores"], ["chances"], axis=-1),
        h.make_node("MatMul", ["chances", "present_value"], ["y"]),
    ]
    cache = [1, 8, 4]
    inputs = {"x": [1, 1, 4], "past_key": cache, "past_value": cache}
    outputs = {"y": [1, 1, 4], "present_key": cache, "present_value": cache}
    ends = [
        [h.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in each.items()]
        for each in (inputs, outputs)
    ]
    stored = [weight(f"w_{name}", 4, 4) for name in ("q", "key", "value")]
    stored += [
        numpy_helper.from_array(np.array(value, np.int64), name)
        for name, value in (("one", [1]), ("end", [9]), ("axis", [1]))
    ]
    graph = h.make_graph(nodes, "step", *ends, stored)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)


PAIRS: dict[str, Mapping[str, str] | bool] = {
    "found by name": True,
    "named": {"past_key": "present_key", "past_value": "present_value"},
    "one of two": {"past_key": "present_key"},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PAIRS)
def test_decoder_step(name: str, engine: str, tmp_path: Path) -> None:
    import onnxruntime as ort

    source = decoder_step()
    session = ort.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    program = checked(mlferry.convert(source, convert_to="mlprogram", states=PAIRS[name]))
    read_by_coremltools(program, tmp_path)
    again = mlferry.MLModel(tmp_path / "model.mlpackage", engine=engine)
    kept = [f.name for f in again.spec.description.state]
    assert kept == (["past_key"] if name == "one of two" else ["past_key", "past_value"])
    cache = {n: np.zeros((1, 8, 4), np.float32) for n in ("past_key", "past_value")}
    state = again.make_state()
    for token in some(10, 1, 1, 4):
        y, key, value = session.run(["y", "present_key", "present_value"], {"x": token, **cache})
        handed = {n: a for n, a in cache.items() if n not in kept}
        actual = again.predict({"x": token, **handed}, state)
        assert set(actual) == {"y"} | ({"present_value"} if handed else set())
        np.testing.assert_allclose(actual["y"], y, atol=5e-3)
        cache = {"past_key": key, "past_value": value}


ADD = [("add", ["x", "past"], ["present"], {}), ("add", ["present"], ["y"], {"alpha": 1.0})]
VARYING = features.multi_array((2,))
VARYING.multiArrayType.shapeRange.sizeRanges.add(lowerBound=2, upperBound=9)

# The past and the present of a model, what is asked, and what the error says.
ERRORS: dict[str, tuple[Any, Any, Any, str]] = {
    "no such input": ((2,), (2,), {"pst": "present"}, "no input 'pst'.*Did you mean 'past'"),
    "no such output": (
        (2,),
        (2,),
        {"past": "presentt"},
        "no output 'presentt'.*Did you mean 'present'",
    ),
    "of many sizes": (VARYING, None, {"past": "present"}, "a state has one size"),
    "of another shape": ((1,), (2,), {"past": "present"}, r"\[1\] and 'present' \[2\]"),
    "no pairs": ((2,), (2,), {"x": "missing"}, "no output 'missing'"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    past, present, states, message = ERRORS[name]
    spec = network_of({"x": (2,), "past": past}, ADD, {"y": None, "present": present})
    with pytest.raises(ExportError, match=message):
        mlferry.to_program(spec, states=states)


def test_no_names_that_make_pairs() -> None:
    spec = network_of({"x": (2,), "h": (2,)}, [("add", ["x", "h"], ["y"], {})], {"y": (2,)})
    with pytest.raises(ExportError, match=r"name the pairs: states=\{'input': 'output'\}"):
        mlferry.to_program(spec, states=True)


def test_target_without_states() -> None:
    spec = network_of({"x": (2,), "past": (2,)}, ADD, {"y": (2,), "present": (2,)})
    with pytest.raises(ExportError, match=r"needs iOS 18 or macOS 15 for states"):
        mlferry.to_program(spec, states=True, minimum_deployment_target="iOS17")


@pytest.mark.parametrize("classic", [True, False], ids=["five axes", "own axes"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_state_is_also_read_by_what_is_given(precision: str, classic: bool, tmp_path: Path) -> None:
    """The state changes behind all that reads its old value."""
    layers = [("add", ["x", "past"], ["present"], {}),
              ("multiply", ["past", "x"], ["y"], {})]  # fmt: skip
    spec = network_of({"x": (2,), "past": (2,)}, layers, {"present": (2,), "y": (2,)},
                      classic=classic)  # fmt: skip
    program = checked(mlferry.to_program(spec, compute_precision=precision, states=True))
    read_by_coremltools(program, tmp_path)
    for engine in ENGINES:
        model = mlferry.MLModel(tmp_path / "model.mlpackage", engine=engine)
        state = model.make_state()
        matches = [model.predict({"x": np.float32([1, 2])}, state)["y"].tolist() for _ in range(3)]
        assert matches == [[0, 0], [1, 4], [2, 8]]


def test_two_inputs_with_one_next_value() -> None:
    layers = [("add", ["x", "past"], ["h"], {}), ("add", ["h", "past2"], ["present"], {})]
    spec = network_of({"x": (2,), "past": (2,), "past2": (2,)}, layers, {"present": (2,)})
    states = {"past": "present", "past2": "present"}
    with pytest.raises(ExportError, match=r"of one input, not of \['past', 'past2'\]"):
        mlferry.to_program(spec, states=states)


def test_no_output_is_left() -> None:
    spec = network_of({"x": (2,), "past": (2,)}, ADD[:1], {"present": (2,)})
    with pytest.raises(ExportError, match="no output is left"):
        mlferry.to_program(spec, states=True)
