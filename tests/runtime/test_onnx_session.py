"""onnxruntime in the place of the NumPy kernels: the same results, split where it cannot go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import LimitError, PredictionError, RegistrationError
from mlferry.layers.kernels import Array
from mlferry.runtime.onnx_session import Compiled, OnnxSession
from mlferry.runtime.session import Session
from tests.exporters.onnx import test_control_flow as flows
from tests.layers.case import Case, network
from tests.layers.test_kernels import CASES
from tests.runtime.test_control_flow import COUNT, START, Row, add, copy, loop, network as rows_of


@pytest.mark.parametrize("case", CASES, ids=str)
def test_row(case: Case) -> None:
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    names = list(model.layers[0].output)
    inputs = {f"x{index}": x for index, x in enumerate(case.inputs)}
    actual = OnnxSession(model, threads=1).run(inputs, names)
    for name, expected in zip(names, case.expected, strict=True):
        assert actual[name].dtype == np.float32
        assert actual[name].shape == expected.shape
        np.testing.assert_allclose(actual[name], expected, case.tolerance, case.tolerance)


def blobs(inputs: dict[str, Any]) -> dict[str, Array]:
    return {name: np.atleast_1d(np.float32(value)) for name, value in inputs.items()}


@pytest.mark.parametrize("name", flows.CASES)
def test_control_flow(name: str) -> None:
    rows, expected, inputs, result = flows.CASES[name]
    actual = OnnxSession(rows_of(*rows), threads=1).run(blobs(inputs), [expected])
    assert actual[expected].tolist() == result


class Twice(mlferry.CustomLayer):
    def evaluate(self, inputs: list[Array]) -> Sequence[Array]:
        return [2 * inputs[0]]


TWICE: Row = ("custom", ["a"], ["b"], {"className": "Twice"})


def parts(session: OnnxSession, inputs: dict[str, Array], *expected: str) -> list[str]:
    planned = [item.part for item in session.plan(inputs, expected)]
    return ["onnxruntime" if isinstance(part, Compiled) else "numpy" for part in planned]


def test_a_custom_layer_splits_the_network() -> None:
    rows = [add("x", 1, "a"), TWICE, add("b", 1, "c"), ("add", ["a", "c"], ["y"], {})]
    session = OnnxSession(rows_of(*rows), {"Twice": Twice}, threads=1)
    inputs = blobs({"x": [1, 2]})
    assert parts(session, inputs, "y") == ["onnxruntime", "numpy", "onnxruntime"]
    assert session.run(inputs, ["y"])["y"].tolist() == [7, 10]
    assert session.run(inputs, ["b", "x"])["b"].tolist() == [4, 6]
    assert parts(session, inputs, "b") == ["onnxruntime", "numpy"]


def test_constants_are_not_handed_from_part_to_part() -> None:
    rows = [
        ("loadConstantND", [], ["k"], {"shape": (2,), "data": np.array([1, 2])}),
        ("add", ["x", "k"], ["a"], {}), TWICE, ("add", ["b", "k"], ["y"], {}),
    ]  # fmt: skip
    session = OnnxSession(rows_of(*rows), {"Twice": Twice}, threads=1)
    inputs = blobs({"x": [1, 1]})
    assert session.run(inputs, ["y"])["y"].tolist() == [5, 8]
    first, _, last = (item.part for item in session.plan(inputs, ["y"]))
    assert list(first.outputs) == ["a"]  # type: ignore[union-attr]
    assert list(last.inputs) == ["b"]  # type: ignore[union-attr]
    assert session.run(inputs, ["k", "b"])["k"].tolist() == [1, 2]


def test_sizes_that_keep_changing_are_compiled_once_for_all() -> None:
    session = OnnxSession(rows_of(add("x", 1, "a"), add("a", 1, "y")), threads=1)
    compiled = set()
    for size in (1, 2, 3, 4, 5, 6):
        inputs = blobs({"x": np.zeros((2, size))})
        assert session.run(inputs, ["y"])["y"].shape == (2, size)
        compiled.add(id(session.plan(inputs, ["y"])))
    assert len(compiled) == 4  # three of their own, one for all others
    assert session.run(blobs({"x": np.zeros((3, 2))}), ["y"])["y"].shape == (3, 2)
    assert session.run(blobs({"x": np.zeros((1, 2, 2))}), ["y"])["y"].shape == (1, 2, 2)


def test_extents_that_a_layer_needs_stay_known() -> None:
    rows = [("squeeze", ["x"], ["y"], {"squeezeAll": True})]
    session = OnnxSession(rows_of(*rows), threads=1)
    for size in (1, 2, 3, 4, 5):
        inputs = blobs({"x": np.zeros((2, size, 1))})
        assert session.run(inputs, ["y"])["y"].shape == ((2,) if size == 1 else (2, size))
        assert parts(session, inputs, "y") == ["onnxruntime"]


def test_a_custom_layer_in_a_loop_keeps_the_loop_here() -> None:
    twice: Row = ("custom", ["sum"], ["more"], {"className": "Twice"})
    rows = [START, loop([twice, copy("more", "sum")], maxLoopIterations=3), add("sum", 1, "y")]
    session = OnnxSession(rows_of(*rows), {"Twice": Twice}, threads=1)
    inputs = blobs({"x": 1})
    assert session.run(inputs, ["y"])["y"].tolist() == [9]
    assert parts(session, inputs, "y") == ["onnxruntime", "numpy", "onnxruntime"]


def test_what_onnx_cannot_express_splits_the_network() -> None:
    """The rank of the slice depends on data: its neighbours know no rank any more."""
    rows = [
        ("fillStatic", [], ["one"], {"value": 1, "targetShape": (2,)}),
        ("multiply", ["flags", "one"], ["squeeze"], {}),
        ("sliceDynamic", ["x", "z", "z", "o", "z", "o", "squeeze"], ["a"], {}),
        add("a", 1, "y"),
    ]
    inputs = blobs({"x": [[1, 2], [3, 4]], "flags": [1, 0], "z": [0, 0], "o": [1, 1]})
    session = OnnxSession(rows_of(*rows), threads=1)
    assert session.run(inputs, ["y"])["y"].tolist() == [2, 3]
    assert parts(session, inputs, "y") == ["onnxruntime", "numpy", "onnxruntime"]


def test_an_overwritten_blob_goes_through_a_split() -> None:
    rows = [add("x", 1, "a"), TWICE, copy("b", "a"), add("a", 1, "y")]
    session = OnnxSession(rows_of(*rows), {"Twice": Twice}, threads=1)
    assert session.run(blobs({"x": 1}), ["y", "a"]) == {"y": [5], "a": [4]}


def test_random_layers_draw_what_numpy_draws() -> None:
    rows = [("randomNormalLike", ["x"], ["n"], {"seed": 3}), ("add", ["n", "x"], ["y"], {})]
    inputs = blobs({"x": [1, 2, 3]})
    actual = OnnxSession(rows_of(*rows), threads=1).run(inputs, ["y"])["y"]
    expected = Session(rows_of(*rows)).run(inputs, ["y"])["y"]
    assert actual.tolist() == expected.tolist()


def test_blobs_that_are_not_there() -> None:
    session = OnnxSession(rows_of(add("x", 1, "y")), threads=1)
    with pytest.raises(PredictionError, match=r"no blob 'yy'\. Did you mean 'y'"):
        session.run(blobs({"x": 1}), ["yy"])
    branch = OnnxSession(rows_of(flows.branch("c", flows.YES)), threads=1)
    with pytest.raises(PredictionError, match="'y' was not made: no layer that ran makes it"):
        branch.run(blobs({"c": 0, "x": 1}), ["y"])
    assert branch.run(blobs({"c": 1, "x": 1}), ["y"])["y"].tolist() == [11]


@pytest.mark.parametrize("mode", ["SCATTER_UPDATE", "SCATTER_ADD", "SCATTER_MUL", "SCATTER_MAX"])
@pytest.mark.parametrize("kind", ["scatterND", "scatter", "scatterAlongAxis"])
def test_a_place_that_is_named_often_gets_its_updates_in_order(kind: str, mode: str) -> None:
    """Whatever the number of threads: those of some nodes race."""
    rng = np.random.default_rng(0)
    x, count = rng.normal(size=(8, 32)).astype(np.float32), 5000
    shape = {"scatterND": (count, 1), "scatter": (count,), "scatterAlongAxis": (count, 32)}[kind]
    params = {"mode": mode} | ({} if kind == "scatterND" else {"axis": 0})
    model = network(kind, params, 3, 1)
    inputs = {
        "x0": x,
        "x1": rng.integers(-8, 8, shape).astype(np.float32),
        "x2": (rng.normal(size=(count, 32)) * 0.01 + 1).astype(np.float32),
    }
    expected = Session(model).run(inputs, ["y0"])["y0"]
    session = OnnxSession(model, threads=4)
    for _ in range(5):
        np.testing.assert_allclose(session.run(inputs, ["y0"])["y0"], expected, rtol=1e-3)


def test_a_point_outside_is_an_error() -> None:
    session = OnnxSession(rows_of(("scatterND", ["x", "i", "u"], ["y"], {})), threads=1)
    inputs = {"x": np.zeros((2, 3), np.float32), "u": np.ones(2, np.float32)}
    inside = session.run({**inputs, "i": np.array([[0, -1], [1, 2]], np.float32)}, ["y"])["y"]
    assert inside.tolist() == [[0, 0, 1], [0, 0, 1]]
    for point in ([0, 3], [2, 0], [-3, 0], [0, -4]):
        with pytest.raises(PredictionError, match="cannot evaluate scatterND"):
            session.run({**inputs, "i": np.array([[0, 0], point], np.float32)}, ["y"])


# Layers that ONNX's own nodes would take silently: kind, parameters, inputs.
REFUSED: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("embeddingND", {"vocabSize": 3, "embeddingSize": 2, "weights": np.arange(6)}, [[[-1]]]),
    ("embedding", {"inputDim": 3, "outputChannels": 2, "weights": np.arange(6)}, [[[[[-1]]]]]),
    ("sliceBySize", {"size": 2, "axis": 0}, [[1, 2, 3], -5]),
    ("sliceBySize", {"size": 2, "axis": 0}, [[1, 2, 3], 2]),
    ("broadcastToDynamic", {}, [[1, 2, 3], [1]]),
    ("rangeDynamic", {}, [4, 1, 0]),
    ("gather", {"axis": 0}, [[1, 2, 3], -4]),
]


@pytest.mark.parametrize("row", range(len(REFUSED)))
def test_what_numpy_refuses_onnxruntime_does_too(row: int) -> None:
    kind, params, inputs = REFUSED[row]
    model = network(kind, params, len(inputs), 1)
    sample = {f"x{index}": np.atleast_1d(np.float32(x)) for index, x in enumerate(inputs)}
    for session in (Session(model), OnnxSession(model, threads=1)):
        with pytest.raises(mlferry.MlferryError):
            session.run(sample, ["y0"])


def test_shapes_that_do_not_fit_are_refused_after_many_that_do() -> None:
    rows: list[Row] = [("crop", ["x", "like"], ["y"], {"offset": (1, 1)})]
    session = OnnxSession(rows_of(*rows), threads=1)

    def run(size: int, expected: int) -> tuple[int, ...]:
        inputs = {"x": np.zeros((1, 1, size, size)), "like": np.zeros((1, 1, expected, expected))}
        return session.run(blobs(inputs), ["y"])["y"].shape

    for size in (4, 5, 6, 7, 8):
        assert run(size, size - 2) == (1, 1, size - 2, size - 2)
    with pytest.raises(mlferry.MlferryError, match=r"a crop of \(1, 1, 9, 9\)"):
        run(9, 9)


def test_an_index_outside_is_an_error() -> None:
    session = OnnxSession(rows_of(("gather", ["x", "i"], ["y"], {})), threads=1)
    with pytest.raises(PredictionError, match=r"cannot evaluate gather 'gather_0' for"):
        session.run(blobs({"x": [1, 2], "i": 5}), ["y"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onnx_runtime"}, r"no engine 'onnx_runtime'.*Did you mean 'onnxruntime'"),
        ({"threads": 0}, "at least 1"),
        ({"engine": "onnxruntime", "winograd": False}, "winograd is for engine='numpy'"),
        ({"engine": "onnxruntime", "compiled": True}, "compiled is for engine='numpy'"),
        ({"engine": "onnxruntime", "threads": 0}, "at least 1"),
    ],
)
def test_engines(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        mlferry.MLModel(b"", **options)


def nested(kind: str, rounds: int, inner: int) -> list[Row]:
    """A loop in a loop; it may stand in a branch, which may leave the round."""
    count = loop(COUNT, maxLoopIterations=inner)
    rows = {
        "in a loop": [count],
        "behind another": [count, count],
        "in a branch": [flows.branch("x", [count], COUNT)],
        "in a branch that goes on": [
            flows.branch("x", [count, ("loopContinue", [], [], {})], []), count,
        ],
    }[kind]  # fmt: skip
    return [START, loop(rows, maxLoopIterations=rounds)]


@pytest.mark.parametrize(
    ("kind", "x", "sum_", "rounds"),
    [
        ("in a loop", 1, 12, 15), ("behind another", 1, 24, 27), ("in a branch", 1, 12, 15),
        ("in a branch", 0, 3, 3), ("in a branch that goes on", 1, 12, 15),
        ("in a branch that goes on", 0, 12, 15),
    ],
)  # fmt: skip
def test_rounds_of_all_loops_are_counted(kind: str, x: float, sum_: float, rounds: int) -> None:
    result = rows_of(*nested(kind, 3, 4))
    for session in (OnnxSession(result, threads=1), Session(result)):
        inputs = blobs({"x": x})
        for most in (rounds, rounds - 1, 2, 1000):
            with mlferry.limits.changed(rounds=most):
                if most >= rounds:
                    assert session.run(inputs, ["sum"])["sum"].tolist() == [sum_ + x]
                else:
                    with pytest.raises(LimitError, match=f"are {most + 1}; the limit is {most}"):
                        session.run(inputs, ["sum"])


def test_a_loop_without_end_is_stopped() -> None:
    one: Row = ("loadConstantND", [], ["go"], {"shape": (1,), "data": np.ones(1)})
    for rows in (
        [START, loop(COUNT, condition=[one])],
        [START, loop([loop(COUNT, maxLoopIterations=1000)], maxLoopIterations=1000)],
    ):
        session = OnnxSession(rows_of(*rows), threads=1)
        with mlferry.limits.changed(rounds=3000), pytest.raises(LimitError, match="rounds="):
            session.run(blobs({"x": 1}), ["sum"])
