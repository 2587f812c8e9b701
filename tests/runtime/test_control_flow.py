"""Branches, loops, copies, and what a plan keeps alive for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.compiled import using
from mlferry.errors import PredictionError, SpecError
from mlferry.runtime.session import Session
from mlferry.spec import fields
from mlferry.spec.proto import neural_network_pb2 as nn

Row = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


def network(*rows: Row, into: nn.NeuralNetwork | None = None) -> nn.NeuralNetwork:
    spec = nn.NeuralNetwork() if into is None else into
    spec.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
    for kind, inputs, outputs, params in rows:
        layer = spec.layers.add(name=f"{kind}_{len(spec.layers)}", input=inputs, output=outputs)
        getattr(layer, kind).SetInParent()
        fields.fill(getattr(layer, kind), params)
    return spec


def add(source: str, amount: float, target: str) -> Row:
    return "add", [source], [target], {"alpha": amount}


def copy(source: str, target: str) -> Row:
    return "copy", [source], [target], {}


def branch(condition: str, yes: Sequence[Row], no: Sequence[Row] = ()) -> Row:
    params = {"ifBranch": network(*yes), "elseBranch": network(*no) if no else None}
    return "branch", [condition], [], params


def loop(body: Sequence[Row], inputs: Sequence[str] = (), **params: Any) -> Row:
    condition = params.pop("condition", None)
    if condition is not None:
        params |= {"conditionNetwork": network(*condition), "conditionVar": "go"}
    return "loop", inputs, [], {**params, "bodyNetwork": network(*body)}


def run(*rows: Row, expected: str = "y", **inputs: float | list[float]) -> list[float]:
    blobs = {name: np.atleast_1d(np.float32(value)) for name, value in inputs.items()}
    return Session(network(*rows)).run(blobs, [expected])[expected].tolist()


YES, NO = [add("x", 10, "y")], [add("x", 20, "y")]


@pytest.mark.parametrize(
    ("condition", "result"), [(1, 11), (-3, 11), (1e-5, 11), (0, 21), (1e-7, 21), (-1e-7, 21)]
)
def test_branch(condition: float, result: float) -> None:
    assert run(branch("c", YES, NO), c=condition, x=1) == [result]


def test_branch_without_else_leaves_what_was_there() -> None:
    rows = [add("x", 1, "y"), branch("c", [add("x", 5, "new"), copy("new", "y")])]
    assert run(*rows, c=1, x=1) == [6]
    assert run(*rows, c=0, x=1) == [2]


def test_output_of_a_branch_that_was_not_taken() -> None:
    with pytest.raises(PredictionError, match="'y' was not made: no layer that ran makes it"):
        run(branch("c", YES), c=0, x=1)


def test_condition_of_several_numbers() -> None:
    with pytest.raises(PredictionError, match="is one number, not of shape"):
        run(branch("c", YES, NO), c=[1, 2], x=1)


def test_blob_that_only_a_later_branch_reads_stays() -> None:
    rows = [
        add("x", 1, "early"),
        add("early", 1, "next"),
        add("next", 1, "last"),
        branch("c", [("add", ["early", "last"], ["y"], {})], [add("last", 0, "y")]),
    ]
    assert run(*rows, c=1, x=0) == [4]
    assert run(*rows, c=0, x=0) == [3]


def test_nested_branches() -> None:
    inner = [branch("d", [add("x", 1, "y")], [add("x", 2, "y")])]
    rows = [branch("c", inner, [add("x", 3, "y")])]
    assert run(*rows, c=1, d=1, x=0) == [1]
    assert run(*rows, c=1, d=0, x=0) == [2]
    assert run(*rows, c=0, d=1, x=0) == [3]


COUNT = [add("sum", 1, "more"), copy("more", "sum")]
START = copy("x", "sum")


def test_counted_loop() -> None:
    assert run(START, loop(COUNT, maxLoopIterations=5), expected="sum", x=0) == [5]
    assert run(START, loop(COUNT, maxLoopIterations=0), expected="sum", x=0) == [0]


def test_count_as_input() -> None:
    rows = [START, loop(COUNT, ["n"], maxLoopIterations=99)]
    assert run(*rows, expected="sum", x=0, n=3) == [3]
    assert run(*rows, expected="sum", x=0, n=0) == [0]
    with pytest.raises(PredictionError, match="number of rounds"):
        run(*rows, expected="sum", x=0, n=[1, 2])


BELOW_FOUR: list[Row] = [("lessThan", ["sum"], ["go"], {"alpha": 4})]


def test_while_loop() -> None:
    rows = [START, loop(COUNT, condition=BELOW_FOUR)]
    assert run(*rows, expected="sum", x=0) == [4]
    assert run(*rows, expected="sum", x=9) == [9]


@pytest.mark.parametrize(("limit", "result"), [(2, 2), (9, 4)])
def test_while_loop_with_a_limit(limit: int, result: int) -> None:
    rows = [START, loop(COUNT, condition=BELOW_FOUR, maxLoopIterations=limit)]
    assert run(*rows, expected="sum", x=0) == [result]
    rows = [START, loop(COUNT, ["n"], condition=BELOW_FOUR)]
    assert run(*rows, expected="sum", x=0, n=limit) == [result]
    assert run(*rows, expected="sum", x=0, n=0) == [0]


def test_condition_runs_once_more_than_the_body() -> None:
    """As in the comments' pseudo-code: also before a limit of 0, and after the last round."""
    counted = [add("asked", 1, "again"), copy("again", "asked"), add("asked", 1, "go")]
    rows = [copy("x", "asked"), START, loop(COUNT, ["n"], condition=counted)]
    assert run(*rows, expected="asked", x=0, n=0) == [1]
    assert run(*rows, expected="asked", x=0, n=3) == [4]


def test_condition_that_nothing_makes() -> None:
    with pytest.raises(PredictionError, match="nothing makes the condition 'go'"):
        run(START, loop(COUNT, condition=[add("sum", 0, "other")]), expected="sum", x=0)


def stop(kind: str) -> list[Row]:
    """Leave the round when the sum is 3."""
    return [("equal", ["sum"], ["three"], {"alpha": 3}), branch("three", [(kind, [], [], {})])]


def test_break_leaves_the_loop() -> None:
    rows = [START, loop([*COUNT, *stop("loopBreak"), *COUNT], maxLoopIterations=9)]
    assert run(*rows, expected="sum", x=0) == [3]


def test_continue_leaves_the_round() -> None:
    rows = [START, loop([*COUNT, *stop("loopContinue"), *COUNT], maxLoopIterations=3)]
    # 1, 2 | 3, and on to the next round | 4, 5
    assert run(*rows, expected="sum", x=0) == [5]


def test_break_leaves_the_inner_loop_only() -> None:
    inner = loop([*COUNT, ("loopBreak", [], [], {}), *COUNT], maxLoopIterations=9)
    assert run(START, loop([inner], maxLoopIterations=4), expected="sum", x=0) == [4]


@pytest.mark.parametrize("kind", ["loopBreak", "loopContinue"])
def test_break_outside_of_a_loop(kind: str) -> None:
    with pytest.raises(SpecError, match=f"{kind} '{kind}_0' is not inside a loop"):
        Session(network((kind, [], [], {})))


def test_blobs_of_a_body_are_seen_outside_and_in_the_next_round() -> None:
    rows = [
        START,
        add("x", 100, "seen"),
        loop([("add", ["sum", "seen"], ["more"], {}), copy("more", "sum")], maxLoopIterations=2),
        ("add", ["more", "seen"], ["y"], {}),
    ]
    assert run(*rows, x=1) == [1 + 101 + 101 + 101]


def test_layers_that_nothing_needs_do_not_run() -> None:
    endless = loop([add("x", 1, "unused")], condition=[add("x", 1, "go")])
    assert run(endless, add("x", 1, "y"), x=1) == [2]


def test_copy_overwrites() -> None:
    assert run(add("x", 1, "y"), add("y", 1, "z"), copy("z", "y"), add("y", 1, "w"), x=0) == [2]


def test_inner_blobs_can_be_asked_for() -> None:
    session = Session(network(START, loop(COUNT, maxLoopIterations=2)))
    actual = session.run({"x": np.zeros(1, np.float32)}, ["more", "x"])
    assert actual["more"].tolist() == [2]
    assert actual["x"].tolist() == [0]
    with pytest.raises(PredictionError, match=r"no blob 'mores'\. Did you mean 'more'"):
        session.run({"x": np.zeros(1, np.float32)}, ["mores"])


def test_plan_frees_what_nothing_reads_any_more() -> None:
    rows = [add("x", 1, "a"), add("a", 1, "b"), branch("b", [add("a", 1, "c")]), copy("b", "y")]
    with using(False):  # compiled code would run the first two as one
        one, other = (
            Session(network(*rows))._program(frozenset([name])).parts for name in ("y", "c")
        )
    assert [item.steps[0].outputs for item in one] == [("a",), ("b",), ("y",)]
    assert [item.frees for item in other] == [("x",), (), ("a", "b")]


def test_custom_layer_in_a_loop() -> None:
    class Twice(mlferry.CustomLayer):
        def evaluate(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
            return [2 * inputs[0]]

    twice: Row = ("custom", ["sum"], ["more"], {"className": "Twice"})
    model = network(START, loop([twice, copy("more", "sum")], maxLoopIterations=3))
    session = Session(model, {"Twice": Twice})
    assert session.run({"x": np.ones(1, np.float32)}, ["sum"])["sum"].tolist() == [8]


def test_too_many_outputs() -> None:
    with pytest.raises(PredictionError, match="makes 1 outputs; 2 are named"):
        run(("copy", ["x"], ["y", "z"], {}), x=1)


def test_missing_input() -> None:
    with pytest.raises(PredictionError, match="reads 'b', which nothing before it makes"):
        run(add("b", 1, "y"), x=1)
