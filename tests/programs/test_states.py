"""States that branches and loops write: both engines, graphs, precision, and limits of rounds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import LimitError, MlferryError, PredictionError
from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2
from tests.programs import by_hand
from tests.programs.by_hand import literal, operation, tensor

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

ENGINES: dict[str, dict[str, Any]] = {
    "numpy": {"engine": "numpy"}, "onnxruntime": {"engine": "onnxruntime", "threads": 1},
}  # fmt: skip
VECTOR, COUNT, FLAG = tensor("fp16", (2,)), tensor("int32"), tensor("bool")
X = np.array([1.0, -2.0], np.float16)


def half(*values: float) -> mil.Value:
    result = mil.Value(type=tensor("fp16", (len(values),)))
    result.immediateValue.tensor.bytes.values = np.asarray(values, "<f2").tobytes()
    return result


def read(name: str) -> mil.Operation:
    return operation("read_state", {name: VECTOR}, {"input": "s"})


def write(name: str) -> mil.Operation:
    return operation("write_state", {}, {"input": "s", "data": name})


def add(x: str, y: str | mil.Value, result: str) -> mil.Operation:
    return operation("add", {result: VECTOR}, {"x": x, "y": y})


def block(result: mil.Operation, inputs: dict[str, mil.ValueType], *operations: mil.Operation,
          outputs: list[str]) -> None:  # fmt: skip
    added = result.blocks.add()
    for name, kind in inputs.items():
        added.inputs.add(name=name, type=kind)
    added.operations.extend(operations)
    added.outputs.extend(outputs)


def looped(prefix: str, start: str, rounds: int, step: int, *body: mil.Operation,
           last: str) -> mil.Operation:  # fmt: skip
    """`rounds` times, with a counter and a vector, whose next value is `last`."""
    p = prefix
    result = operation("while_loop", {f"{p}n": COUNT, f"{p}y": VECTOR})
    result.inputs["loop_vars"].arguments.add().value.CopyFrom(literal("int32", 0))
    result.inputs["loop_vars"].arguments.add().name = start
    less = operation("less", {f"{p}go": FLAG}, {"x": f"{p}n1", "y": literal("int32", rounds)})
    block(result, {f"{p}n1": COUNT, f"{p}v1": VECTOR}, less, outputs=[f"{p}go"])
    more = operation("add", {f"{p}n3": COUNT}, {"x": f"{p}n2", "y": literal("int32", step)})
    block(result, {f"{p}n2": COUNT, f"{p}v2": VECTOR}, more, *body, outputs=[f"{p}n3", last])
    return result


def chosen(prefix: str, flag: str, yes: list[mil.Operation], no: list[mil.Operation],
           outputs: tuple[str, str]) -> mil.Operation:  # fmt: skip
    result = operation("cond", {f"{prefix}y": VECTOR}, {"pred": flag})
    block(result, {}, *yes, outputs=[outputs[0]])
    block(result, {}, *no, outputs=[outputs[1]])
    return result


def is_positive() -> list[mil.Operation]:
    """Whether the sum of the input is above 0."""
    scalar = tensor("fp16")
    total = operation("reduce_sum", {"sum": scalar}, {"x": "x"})
    zero = mil.Value(type=scalar)
    zero.immediateValue.tensor.bytes.values = b"\0\0"
    return [total, operation("greater", {"flag": FLAG}, {"x": "sum", "y": zero})]


def model(*operations: mil.Operation, outputs: list[str]) -> model_pb2.Model:
    spec = by_hand.model({"x": VECTOR}, operations, outputs, 8)
    state = mil.ValueType()
    state.stateType.wrappedType.CopyFrom(VECTOR)
    spec.mlProgram.functions["main"].inputs.add(name="s", type=state)
    described = spec.description.state.add(name="s").type.stateType.arrayType
    described.shape.append(2)
    described.dataType = ft.ArrayFeatureType.FLOAT16
    return spec


def in_a_loop() -> model_pb2.Model:
    """Three times s = s + x; y = x + the sum of what s was."""
    body = [read("old"), add("old", "x", "new"), write("new"), add("av2", "new", "av3")]
    return model(looped("a", "x", 3, 1, *body, last="av3"), read("end"),
                 add("ay", "end", "y"), outputs=["y"])  # fmt: skip


def in_a_branch() -> model_pb2.Model:
    """One branch writes; the other only reads."""
    yes = [read("one"), add("one", "x", "two"), write("two")]
    no = [read("three")]
    return model(*is_positive(), chosen("c", "flag", yes, no, ("two", "three")), read("end"),
                 add("cy", "end", "y"), outputs=["y"])  # fmt: skip


def in_a_loop_in_a_branch_in_a_loop() -> model_pb2.Model:
    inner = looped("b", "one", 2, 1, read("i1"), add("i1", half(0.5, 1), "i2"), write("i2"),
                   add("bv2", "i2", "bv3"), last="bv3")  # fmt: skip
    yes = [read("one"), inner, read("six"), add("by", "six", "two")]
    no = [read("three"), add("three", half(1, 1), "four"), write("four")]
    choice = chosen("c", "flag", yes, no, ("two", "four"))
    body = [choice, add("cy", "av2", "av3")]
    return model(*is_positive(), looped("a", "x", 2, 1, *body, last="av3"), read("end"),
                 add("ay", "end", "y"), outputs=["y"])  # fmt: skip


def written_behind_a_loop() -> model_pb2.Model:
    body = [read("old"), add("av2", "old", "av3")]
    return model(looped("a", "x", 2, 1, *body, last="av3"), write("ay"), read("y"), outputs=["y"])


MODELS: dict[str, Callable[[], model_pb2.Model]] = {
    make.__name__: make
    for make in (in_a_loop, in_a_branch, in_a_loop_in_a_branch_in_a_loop, written_behind_a_loop)
}


def formula(name: str, x: Any, s: Any) -> tuple[Any, Any]:
    """y, and the state behind it."""
    if name == "in_a_loop":
        y = x
        for _ in range(3):
            s = s + x
            y = y + s
        return y + s, s
    if name == "in_a_branch":
        s = s + x if x.sum() > 0 else s
        return s + s, s
    if name == "in_a_loop_in_a_branch_in_a_loop":
        y = x
        for _ in range(2):
            if x.sum() > 0:
                v = s
                for _ in range(2):
                    s = s + np.array([0.5, 1])
                    v = v + s
                result = v + s
            else:
                s = result = s + 1
            y = y + result
        return y + s, s
    y = x + s + s
    return y, y


@pytest.mark.parametrize("precision", ["half", "exact"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_written_in_branches_and_loops(name: str, engine: str, precision: str) -> None:
    spec = MODELS[name]()
    assert not [p for p in mlferry.spec.validate.validate(spec) if p.severity == "error"]
    session = mlferry.MLModel(spec, precision=precision, **ENGINES[engine])
    state = session.make_state()
    right = np.zeros(2)
    for x in (X, -X, X + 1):
        actual = session.predict({"x": x}, state)["y"]
        expected, right = formula(name, x.astype(np.float64), right)
        np.testing.assert_allclose(actual, expected, rtol=1e-3)
        np.testing.assert_allclose(state["s"], right, rtol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_of_them_runs_on_numpy(name: str) -> None:
    from mlferry.programs.values import Weights
    from mlferry.runtime.onnx_program_session import OnnxProgramSession

    function = MODELS[name]().mlProgram.functions["main"]
    session = OnnxProgramSession(function, Weights(), threads=1)
    assert session.on_numpy({"x": X}) == []


@pytest.mark.parametrize("name", MODELS)
def test_states_of_exported_graphs(name: str) -> None:
    message = mlferry.export_onnx(mlferry.MLModel(MODELS[name]()))
    kept = {p.key: p.value for p in message.metadata_props}["mlferry.states"]
    assert json.loads(kept) == {"s": "s_out"}
    session = ort.InferenceSession(message.SerializeToString())
    inputs = {"x": X, "s": np.zeros(2, np.float16)}
    right = np.zeros(2)
    for _ in range(2):
        actual = dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs),
                         strict=True))  # fmt: skip
        expected, right = formula(name, X.astype(np.float64), right)
        np.testing.assert_allclose(actual["y"], expected, rtol=1e-3)
        np.testing.assert_allclose(actual["s_out"], right, rtol=1e-3)
        inputs["s"] = actual["s_out"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("order", [("numpy", "onnxruntime"), ("onnxruntime", "numpy")])
def test_a_state_moves_between_engines(order: tuple[str, str], name: str) -> None:
    spec, right = MODELS[name](), np.zeros(2)
    models = [mlferry.MLModel(spec, **ENGINES[engine]) for engine in order]
    state = models[0].make_state()
    for index in range(4):
        actual = models[index % 2].predict({"x": X}, state)["y"]
        expected, right = formula(name, X.astype(np.float64), right)
        np.testing.assert_allclose(actual, expected, rtol=1e-3)
        assert state["s"].dtype == np.float16


def test_a_state_of_another_precision_is_taken() -> None:
    spec = in_a_loop()
    half_model, exact = (mlferry.MLModel(spec, precision=p) for p in ("half", "exact"))
    state = half_model.make_state()
    half_model.predict({"x": X}, state)
    actual = exact.predict({"x": X}, state)["y"]
    np.testing.assert_allclose(actual, formula("in_a_loop", X, 3.0 * X)[0], rtol=1e-3)
    with pytest.raises(PredictionError, match="make_state"):
        exact.predict({"x": X})


# ---- limits of rounds ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_rounds_of_all_loops_are_counted(engine: str) -> None:
    """Two loops behind each other, and loops in branches in loops, count together."""
    body = [add("av2", half(1, 1), "av3")]
    more = [add("bv2", half(1, 1), "bv3")]
    first, second = (looped("a", "x", 6, 1, *body, last="av3"),
                     looped("b", "ay", 6, 1, *more, last="bv3"))  # fmt: skip
    spec = model(first, second, write("by"), outputs=["by"])
    session = mlferry.MLModel(spec, **ENGINES[engine])
    state = session.make_state()
    for most, enough in ((12, True), (11, False), (5, False), (100, True), (0, False)):
        with mlferry.limits.changed(rounds=most):
            if enough:
                np.testing.assert_array_equal(session.predict({"x": X}, state)["by"], X + 12)
            else:
                with pytest.raises(LimitError, match="rounds of its loops are"):
                    session.predict({"x": X}, state)
    nested = mlferry.MLModel(in_a_loop_in_a_branch_in_a_loop(), **ENGINES[engine])
    for x, rounds in ((-X, 6), (X, 2)):  # the branch without a loop
        with mlferry.limits.changed(rounds=rounds):
            nested.predict({"x": x}, nested.make_state())
        with mlferry.limits.changed(rounds=rounds - 1), pytest.raises(LimitError, match="rounds="):
            nested.predict({"x": x}, nested.make_state())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_without_end_is_stopped(engine: str) -> None:
    """The condition never changes; so does that of a loop in a loop."""
    spec = model(looped("a", "x", 3, 0, add("av2", half(1, 1), "av3"), last="av3"), write("ay"),
                 outputs=["ay"])  # fmt: skip
    inner = looped("b", "av2", 1000, 1, add("bv2", half(1, 1), "bv3"), last="bv3")
    both = model(looped("a", "x", 1000, 1, inner, last="by"), write("ay"), outputs=["ay"])
    for endless in (spec, both):
        session = mlferry.MLModel(endless, **ENGINES[engine])
        with mlferry.limits.changed(rounds=3000), pytest.raises(MlferryError, match="3,001"):
            session.predict({"x": X}, session.make_state())


# ---- check_precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
def test_precision_of_programs_with_states_and_loops(name: str, engine: str) -> None:
    session = mlferry.MLModel(MODELS[name](), **ENGINES[engine])
    problems = mlferry.check_precision(session, {"x": X})
    assert not any(each.overflows for each in problems.operations)
    assert problems.outputs.keys() == {session.spec.description.output[0].name}
    far = mlferry.check_precision(session, {"x": np.array([60000, 60000], np.float16)})
    overflows = [each.name for each in far.operations if each.overflows]
    assert bool(overflows) == (name != "written_behind_a_loop")
    assert set(overflows) <= {"ay", "cy", "y", "end", "sum"}
