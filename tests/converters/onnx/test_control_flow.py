"""If and Loop whose conditions and numbers of rounds are computed; onnxruntime is the oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.errors import ConversionError

F, INT, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def info(name: str, kind: int, shape: Sequence[Any] | None = ()) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def body(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **constants: Any,
) -> onnx.GraphProto:
    stored = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    return helper.make_graph(nodes, "body", inputs, outputs, stored)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **constants: Any,
) -> onnx.ModelProto:
    graph = body(nodes, inputs, outputs, **constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


node = helper.make_node
X = info("x", F, (2, 3))
ONE = np.float32(1)


def branching(yes: onnx.GraphProto, no: onnx.GraphProto, **constants: Any) -> onnx.ModelProto:
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["c"]),
        node("If", ["c"], ["r"], then_branch=yes, else_branch=no),
        node("Mul", ["r", "two"], ["y"]),
    ]
    return model(nodes, [X], [info("y", F, None)], zero=np.float32(0), two=np.float32(2),
                 **constants)  # fmt: skip


RELU = body([node("Relu", ["x"], ["a"])], [], [info("a", F, None)])
ADD = body([node("Add", ["x", "k"], ["b"])], [], [info("b", F, None)], k=np.float32(7))
OUTER = body([node("Identity", ["x"], ["b"])], [], [info("b", F, None)])
CONSTANT = body([node("Identity", ["k"], ["b"])], [], [info("b", F, None)],
                k=np.ones((2, 3), np.float32))  # fmt: skip
NESTED = body(
    [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Greater", ["m", "five"], ["c2"]),
     node("If", ["c2"], ["b"], then_branch=RELU, else_branch=ADD)],
    [], [info("b", F, None)], five=np.float32(5),
)  # fmt: skip


def looping(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    *,
    trips: str = "n",
    start: str = "",
    states: Sequence[str] = ("x",),
    results: Sequence[str] = ("y",),
    before: Sequence[onnx.NodeProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] = (X,),
    **constants: Any,
) -> onnx.ModelProto:
    kinds = [F] * len(states)
    sample = [info("i", INT), info("go", B),
             *(info(f"s{k}", kind, None) for k, kind in enumerate(kinds))]  # fmt: skip
    inner = {name[6:]: constants.pop(name) for name in list(constants) if name.startswith("inner_")}
    round_of = body(nodes, sample, outputs, **inner)
    loop = node("Loop", [trips, start, *states], list(results), body=round_of)
    result = [info(name, F, None) for name in results if name]
    return model([*before, loop], inputs, result, **constants)


STEP = [node("Add", ["s0", "one"], ["t0"])]
GO = node("Identity", ["go"], ["go_on"])
BELOW = [
    node("ReduceMax", ["t0"], ["most"], keepdims=0), node("Less", ["most", "ten"], ["go_on"])
]  # fmt: skip
N = np.array(4, np.int64)
MODELS: dict[str, onnx.ModelProto] = {
    "branch": branching(RELU, ADD),
    "branch that passes a value through": branching(OUTER, ADD),
    "branch of a constant": branching(CONSTANT, RELU),
    "nested branches": branching(NESTED, OUTER),
    "loop that a condition ends": looping(
        [*STEP, *BELOW], [info("go_on", B), info("t0", F, None)], n=np.array(50, np.int64),
        inner_one=ONE, inner_ten=np.float32(10),
    ),
    "loop without limit": looping(
        [*STEP, *BELOW], [info("go_on", B), info("t0", F, None)], n=np.array(2**63 - 1, np.int64),
        inner_one=ONE, inner_ten=np.float32(10),
    ),
    "number of rounds computed": looping(
        [*STEP, GO], [info("go_on", B), info("t0", F, None)], trips="count",
        before=[node("ReduceMax", ["x"], ["m"], keepdims=0), node("Relu", ["m"], ["p"]),
                node("Cast", ["p"], ["count"], to=INT)],
        inner_one=ONE,
    ),
    "first condition computed": looping(
        [*STEP, GO], [info("go_on", B), info("t0", F, None)], start="first", n=N,
        before=[node("ReduceMax", ["x"], ["m"], keepdims=0),
                node("Greater", ["m", "one"], ["first"])],
        inner_one=ONE, one=ONE,
    ),
    "states that swap": looping(
        [node("Identity", ["s1"], ["t0"]), node("Identity", ["s0"], ["t1"]),
         node("Less", ["i", "three"], ["go_on"])],
        [info("go_on", B), info("t0", F, None), info("t1", F, None)],
        states=("x", "z"), results=("y", "w"), n=np.array(300, np.int64),
        before=[node("Neg", ["x"], ["z"])], inner_three=np.array(4, np.int64),
    ),
    "many rounds, gathered": looping(
        [*STEP, GO, node("ReduceSum", ["t0"], ["row"], keepdims=0),
         node("Cast", ["i"], ["at"], to=F), node("Add", ["row", "at"], ["kept"])],
        [info("go_on", B), info("t0", F, None), info("kept", F, None)],
        results=("y", "all"), n=np.array(300, np.int64), inner_one=ONE,
    ),
    "values around the loop": looping(
        [node("Mul", ["s0", "outer"], ["t0"]), *BELOW],
        [info("go_on", B), info("t0", F, None)], n=np.array(20, np.int64),
        before=[node("Abs", ["x"], ["pos"]), node("Add", ["pos", "one"], ["outer"])],
        states=("pos",), inner_ten=np.float32(10), one=ONE,
    ),
    "never": looping(
        [*STEP, *BELOW], [info("go_on", B), info("t0", F, None)], start="no",
        n=np.array(2**63 - 1, np.int64), no=np.array(False), inner_one=ONE,
        inner_ten=np.float32(10),
    ),
}  # fmt: skip
W = (np.arange(9, dtype=np.float32).reshape(3, 3) - 4) / 20
MIXED = [node("MatMul", ["s0", "w"], ["m"]), node("Tanh", ["m"], ["h"])]


def scanning(count: int, **attributes: Any) -> onnx.ModelProto:
    """A recurrence over many rows, which gives the state and its sum at each."""
    nodes = [*MIXED, node("Add", ["h", "row"], ["t0"]),
             node("ReduceSum", ["t0"], ["total"], keepdims=0)]  # fmt: skip
    inputs = [info("s0", F, (2, 3)), info("row", F, (2, 3))]
    result = [info("t0", F, (2, 3)), info("total", F, ()), info("kept", F, (2, 3))]
    round_of = body([*nodes, node("Identity", ["h"], ["kept"])], inputs, result, w=W)
    axis = attributes.get("scan_input_axes", [0])[0]
    shape = [2, 3]
    shape.insert(axis, 1)
    repeats = [1, 1, 1]
    repeats[axis] = count
    before = [node("Reshape", ["x", "shape"], ["one"]), node("Tile", ["one", "repeats"], ["all"]),
              node("CumSum", ["all", "axis"], ["rows"])]  # fmt: skip
    scan = node("Scan", ["x", "rows"], ["y", "totals", "states"], body=round_of, num_scan_inputs=1,
                **attributes)  # fmt: skip
    return model(
        [*before, scan], [X], [info(name, F, None) for name in ("y", "totals", "states")],
        shape=np.array(shape), repeats=np.array(repeats), axis=np.array(axis),
    )  # fmt: skip


WEIGHED: dict[str, onnx.ModelProto] = {
    f"{name}, {count} rounds": network
    for count in (3, 40)
    for name, network in {
        "loop": looping([*MIXED, node("Add", ["h", "s0"], ["t0"]), GO],
                        [info("go_on", B), info("t0", F, None)], n=np.array(count), inner_w=W),
        "loop that gathers": looping(
            [*MIXED, node("Add", ["h", "s0"], ["t0"]), GO, node("Cast", ["i"], ["at"], to=F),
             node("Mul", ["h", "at"], ["kept"])],
            [info("go_on", B), info("t0", F, None), info("kept", F, None)], results=("y", "all"),
            n=np.array(count), inner_w=W),
        "scan": scanning(count),
        "scan backwards": scanning(count, scan_input_directions=[1]),
        "scan written backwards": scanning(count, scan_output_directions=[1, 0]),
        "scan of the last axis": scanning(count, scan_input_axes=[2], scan_input_directions=[1],
                                          scan_output_directions=[0, 1]),
    }.items()
}  # fmt: skip
MODELS |= WEIGHED
SAMPLES = [[[1, 2, 3], [4, 5, 6]], [[-1, -2, 3], [-4, 0, 1]], [[0, 0, 0], [0, 0, 0.5]]]


@pytest.mark.parametrize("name", list(MODELS))
def test_against_onnxruntime(name: str, library: Callable[[str], Any]) -> None:
    network = MODELS[name]
    session = library("onnxruntime").InferenceSession(network.SerializeToString())
    converted = mlferry.convert(network)
    for sample in SAMPLES:
        x = np.array(sample, np.float32)
        expected = session.run(None, {"x": x})
        actual = converted.predict({"x": x}).values()
        for got, right in zip(actual, expected, strict=True):
            assert got.shape == (right.shape or (1,))
            np.testing.assert_allclose(got, right.reshape(got.shape), rtol=1e-5)


def kinds(network: onnx.ModelProto) -> list[str | None]:
    layers = mlferry.convert(network).get_spec().neuralNetwork.layers
    return [layer.WhichOneof("layer") for layer in layers]


def test_what_is_written() -> None:
    assert "branch" in kinds(MODELS["branch"])
    assert "loop" in kinds(MODELS["loop that a condition ends"])
    few = looping([*STEP, GO], [info("go_on", B), info("t0", F, None)], n=N, inner_one=ONE)
    assert kinds(few).count("addBroadcastable") == 4  # few rounds are unrolled


@pytest.mark.parametrize("name", WEIGHED)
def test_weights_are_stored_once(name: str) -> None:
    weights = mlferry.convert(WEIGHED[name]).describe().weights
    assert sum(weights.values()) < 2 * W.size + 6


def test_a_state_that_nobody_reads() -> None:
    """Left out, beside a condition that is left out; onnxruntime crashes on it."""

    def gathering(state: str) -> onnx.ModelProto:
        return looping(
            [*MIXED, node("Add", ["h", "s0"], ["t0"]), GO],
            [info("go_on", B), info("t0", F, None), info("h", F, None)], results=(state, "all"),
            n=np.array(12), inner_w=W,
        )  # fmt: skip

    x = np.array(SAMPLES[0], np.float32)
    (actual,) = mlferry.convert(gathering("")).predict({"x": x}).values()
    _, right = mlferry.convert(gathering("y")).predict({"x": x}).values()
    np.testing.assert_array_equal(actual, right)


def test_what_is_refused() -> None:
    growing = looping(
        [node("Concat", ["s0", "s0"], ["t0"], axis=0), *BELOW],
        [info("go_on", B), info("t0", F, None)], n=N, inner_ten=np.float32(10),
    )  # fmt: skip
    with pytest.raises(ConversionError, match=r"a state of a loop has shape \(2, 3\) before"):
        mlferry.convert(growing)
    gathering = looping(
        [*STEP, *BELOW], [info("go_on", B), info("t0", F, None), info("most", F)],
        results=("y", "all"), n=N, inner_one=ONE, inner_ten=np.float32(10),
    )  # fmt: skip
    with pytest.raises(ConversionError, match="gathers results of each round"):
        mlferry.convert(gathering)
    endless = looping(
        [*STEP, GO], [info("go_on", B), info("t0", F, None)], n=np.array(2**63 - 1, np.int64),
        inner_one=ONE,
    )  # fmt: skip
    with pytest.raises(ConversionError, match="without an end"):
        mlferry.convert(endless)
    ranks = branching(RELU, body([node("ReduceSum", ["x"], ["b"], keepdims=0)], [],
                                 [info("b", F, None)]))  # fmt: skip
    with pytest.raises(ConversionError, match="Core ML needs one rank"):
        mlferry.convert(ranks)
