"""Recurrent ops: which layers they become, and onnxruntime's results, at lengths that vary."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry

RNG = np.random.default_rng(17)
BATCH, INPUTS, UNITS = 3, 5, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
OWN = {
    ("RNN", 1): ["simpleRecurrent"],
    ("RNN", 2): ["simpleRecurrent"] * 2,
    ("GRU", 1): ["gru"],
    ("GRU", 2): ["gru"] * 2,
    ("LSTM", 1): ["uniDirectionalLSTM"],
    ("LSTM", 2): ["biDirectionalLSTM"],
}
RECURRENT = {kind for kinds in OWN.values() for kind in kinds}


class Case(NamedTuple):
    """One op; `states` are "none", "constant", "given" (inputs of the model) or "first only"."""

    op: str
    attributes: dict[str, Any] = {}
    states: str = "none"
    bias: bool = True
    peepholes: bool = False
    lengths: list[int] | None = None
    kinds: list[str] | None = None  # of the recurrent layers, where not those of `OWN`


def acts(*names: str) -> dict[str, Any]:
    return {"activations": list(names)}


def line(alpha: float) -> dict[str, Any]:
    """Of a hard sigmoid; told, as onnxruntime 1.23 takes 0 for what is not."""
    return {"activation_alpha": [alpha], "activation_beta": [0.5]}


BOTH, BACK = {"direction": "bidirectional"}, {"direction": "reverse"}
BEHIND = {"linear_before_reset": 1}
CASES: dict[str, Case] = {
    "rnn": Case("RNN"),
    "rnn backwards with states": Case("RNN", BACK, "given"),
    "rnn both ways, no bias": Case("RNN", BOTH, "constant", bias=False),
    "rnn of relu": Case("RNN", acts("Relu"), "given", kinds=[]),
    "rnn of hard sigmoids": Case("RNN", {**acts("HardSigmoid"), **line(0.2)}),
    "rnn of other hard sigmoids": Case("RNN", {**acts("HardSigmoid"), **line(0.3)}, kinds=[]),
    "gru": Case("GRU"),
    "gru both ways with states": Case("GRU", BOTH, "given"),
    "gru backwards, no bias": Case("GRU", BACK, "constant", bias=False),
    "gru, reset behind": Case("GRU", BEHIND, kinds=[]),
    "gru, reset behind, both ways": Case("GRU", {**BEHIND, **BOTH}, "given", kinds=[]),
    "lstm": Case("LSTM"),
    "lstm backwards with states": Case("LSTM", BACK, "given"),
    "lstm both ways": Case("LSTM", BOTH),
    "lstm both ways with states": Case("LSTM", BOTH, "given"),
    "lstm both ways, half of the states": Case("LSTM", BOTH, "first only"),
    "lstm with peepholes": Case("LSTM", {}, "constant", peepholes=True),
    "lstm both ways with peepholes, no bias": Case("LSTM", BOTH, bias=False, peepholes=True),
    "lstm of other gates": Case("LSTM", acts("HardSigmoid", "Sigmoid", "Tanh")),
    "lstm of unbounded cells": Case("LSTM", acts("Sigmoid", "Relu", "Tanh"), kinds=[]),
    "lstm both ways, other gates backwards": Case(
        "LSTM", {**BOTH, **acts("Sigmoid", "Tanh", "Tanh", "Sigmoid", "Sigmoid", "Tanh")}, "given",
        kinds=["uniDirectionalLSTM"] * 2,
    ),
    "lstm with coupled gates": Case("LSTM", {"input_forget": 1}, kinds=[]),
    "lstm with lengths": Case("LSTM", BOTH, lengths=[6, 2, 4], kinds=[]),
    "gru with lengths": Case("GRU", BACK, "given", lengths=[1, 6, 4], kinds=[]),
    "lstm, all lengths whole": Case("LSTM", {}, lengths=[6, 6, 6]),
}  # fmt: skip


def network(case: Case) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The op alone, and its states where they are inputs; `x` has a length that varies."""
    directions = 2 if case.attributes.get("direction") == "bidirectional" else 1
    rows = GATES[case.op] * UNITS

    def some(*shape: int) -> np.ndarray:
        return RNG.normal(0, 0.6, (directions, *shape)).astype(np.float32)

    constants: dict[str, np.ndarray] = {"w": some(rows, INPUTS), "r": some(rows, UNITS)}
    inputs: dict[str, np.ndarray] = {}
    names = ["x", "w", "r", "", "", "", "", ""]
    if case.bias:
        names[3], constants["b"] = "b", some(2 * rows)
    if case.lengths is not None:
        names[4], constants["lengths"] = "lengths", np.array(case.lengths, np.int32)
    count = 2 if case.op == "LSTM" else 1
    for place in range({"none": 0, "first only": 1}.get(case.states, count)):
        name = names[5 + place] = f"state{place}"
        (constants if case.states == "constant" else inputs)[name] = some(BATCH, UNITS)
    if case.peepholes:
        names[7], constants["p"] = "p", some(3 * UNITS)
    while not names[-1]:
        names.pop()
    outputs = ["y", "y_h", "y_c"][: 1 + count]
    length = "time" if case.lengths is None else 6
    graph = helper.make_graph(
        [helper.make_node(case.op, names, outputs, hidden_size=UNITS, **case.attributes)], "g",
        [helper.make_tensor_value_info("x", 1, [length, BATCH, INPUTS])]
        + [helper.make_tensor_value_info(n, 1, a.shape) for n, a in inputs.items()],
        [helper.make_tensor_value_info(n, 1, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), inputs


def recurrent_kinds(model: mlferry.MLModel) -> list[str]:
    layers = model.get_spec().neuralNetwork.layers
    return [kind for layer in layers if (kind := layer.WhichOneof("layer")) in RECURRENT]


@pytest.mark.parametrize("name", CASES)
def test_recurrent_ops(name: str) -> None:
    import onnxruntime

    case = CASES[name]
    source, sample = network(case)
    lengths = (6,) if case.lengths else (1, 4, 300)
    shape = (6 if case.lengths else mlferry.RangeDim(1, 300, 4), BATCH, INPUTS)
    inputs = [mlferry.TensorType(name="x", shape=shape)]
    model = mlferry.convert(source.SerializeToString(), inputs=inputs)
    directions = 2 if case.attributes.get("direction") == "bidirectional" else 1
    expected = OWN[case.op, directions] if case.kinds is None else case.kinds
    assert recurrent_kinds(model) == expected
    session = onnxruntime.InferenceSession(source.SerializeToString())
    for length in lengths:
        x = RNG.normal(size=(length, BATCH, INPUTS)).astype(np.float32)
        feed = {"x": x, **sample}
        actual = model.predict(feed)
        for output, reference in zip(session.get_outputs(), session.run(None, feed), strict=True):
            assert actual[output.name].shape == reference.shape
            np.testing.assert_allclose(actual[output.name], reference, atol=1e-4)
