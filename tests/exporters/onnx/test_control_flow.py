"""Branches and loops as `If` and `Loop`, with what must come out counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from mlferry.errors import SpecError, UnsupportedLayersError
from tests.exporters.onnx.support import exported
from tests.runtime.test_control_flow import (
    BELOW_FOUR,
    COUNT,
    NO,
    START,
    YES,
    Row,
    add,
    branch,
    copy,
    loop,
    network,
    stop,
)

COUNTED: list[Row] = [add("asked", 1, "again"), copy("again", "asked"), add("asked", 1, "go")]
GROWING: list[Row] = [
    ("concatND", ["list", "x"], ["longer"], {"axis": 0}),
    copy("longer", "list"),
]
INNER = loop([*COUNT, ("loopBreak", [], [], {}), *COUNT], maxLoopIterations=9)

# Rows of layers, the blob that is wanted, the inputs, and what it must be.
CASES: dict[str, tuple[Sequence[Row], str, dict[str, float | list[float]], list[float]]] = {
    "branch taken": ([branch("c", YES, NO)], "y", {"c": 1, "x": 1}, [11]),
    "branch not taken": ([branch("c", YES, NO)], "y", {"c": 1e-7, "x": 1}, [21]),
    "branch on a small negative number": ([branch("c", YES, NO)], "y", {"c": -1e-5, "x": 1}, [11]),
    "branch on a comparison": (
        [("lessThan", ["x"], ["c"], {"alpha": 4}), branch("c", YES, NO)], "y", {"x": 5}, [25],
    ),
    "branch without else, taken": (
        [add("x", 1, "y"), branch("c", [add("x", 5, "n"), copy("n", "y")])], "y",
        {"c": 1, "x": 1}, [6],
    ),
    "branch without else, not taken": (
        [add("x", 1, "y"), branch("c", [add("x", 5, "n"), copy("n", "y")])], "y",
        {"c": 0, "x": 1}, [2],
    ),
    "nested branches": (
        [branch("c", [branch("d", [add("x", 1, "y")], [add("x", 2, "y")])], [add("x", 3, "y")])],
        "y", {"c": 1, "d": 0, "x": 0}, [2],
    ),
    "both ways pass a blob on": (
        [branch("c", [copy("x", "y")], [copy("d", "y")])], "y", {"c": 0, "x": 1, "d": 7}, [7],
    ),
    "counted loop": ([START, loop(COUNT, maxLoopIterations=5)], "sum", {"x": 0}, [5]),
    "loop of no rounds": ([START, loop(COUNT, maxLoopIterations=0)], "sum", {"x": 3}, [3]),
    "count as input": (
        [START, loop(COUNT, ["n"], maxLoopIterations=99)], "sum", {"x": 0, "n": 3}, [3],
    ),
    "while": ([START, loop(COUNT, condition=BELOW_FOUR)], "sum", {"x": 0}, [4]),
    "while that never holds": ([START, loop(COUNT, condition=BELOW_FOUR)], "sum", {"x": 9}, [9]),
    "while with a limit": (
        [START, loop(COUNT, condition=BELOW_FOUR, maxLoopIterations=2)], "sum", {"x": 0}, [2],
    ),
    "while with a limit as input": (
        [START, loop(COUNT, ["n"], condition=BELOW_FOUR)], "sum", {"x": 0, "n": 9}, [4],
    ),
    "condition once more than the body": (
        [copy("x", "asked"), START, loop(COUNT, ["n"], condition=COUNTED)], "asked",
        {"x": 0, "n": 3}, [4],
    ),
    "condition before a limit of 0": (
        [copy("x", "asked"), START, loop(COUNT, ["n"], condition=COUNTED)], "asked",
        {"x": 0, "n": 0}, [1],
    ),
    "break": (
        [START, loop([*COUNT, *stop("loopBreak"), *COUNT], maxLoopIterations=9)], "sum",
        {"x": 0}, [3],
    ),
    "continue": (
        [START, loop([*COUNT, *stop("loopContinue"), *COUNT], maxLoopIterations=3)], "sum",
        {"x": 0}, [5],
    ),
    "break skips the condition": (
        [copy("x", "asked"), START,
         loop([*COUNT, *stop("loopBreak")], condition=COUNTED, maxLoopIterations=9)], "asked",
        {"x": 0}, [3],
    ),
    "break of the inner loop only": (
        [START, loop([INNER], maxLoopIterations=4)], "sum", {"x": 0}, [4],
    ),
    "blob of a body seen outside and in the next round": (
        [START, add("x", 100, "seen"),
         loop([("add", ["sum", "seen"], ["more"], {}), copy("more", "sum")], maxLoopIterations=2),
         ("add", ["more", "seen"], ["y"], {})], "y", {"x": 1}, [304],
    ),
    "a blob behind a continue, which the same round reads": (
        [START, loop([*COUNT, *stop("loopContinue"),
                      ("greaterThan", ["sum"], ["big"], {"alpha": 5}),
                      branch("big", [("loopBreak", [], [], {})]), *COUNT], maxLoopIterations=9)],
        "sum", {"x": 0}, [6],  # 1, 2 | 3 | 4, 5 | 6 and out
    ),
    "state that grows": (
        [copy("x", "list"), loop(GROWING, maxLoopIterations=3)], "list", {"x": 2}, [2] * 4,
    ),
    "copy overwrites": (
        [add("x", 1, "y"), add("y", 1, "z"), copy("z", "y"), add("y", 1, "w")], "w", {"x": 0}, [3],
    ),
    "layers that nothing needs": (
        [loop([add("x", 1, "unused")], condition=[add("x", 1, "go")]), add("x", 1, "y")], "y",
        {"x": 1}, [2],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_flow(name: str) -> None:
    rows, expected, inputs, result = CASES[name]
    sample = {blob: np.atleast_1d(np.float32(value)) for blob, value in inputs.items()}
    assert exported(network(*rows), sample, [expected])[expected].tolist() == result


# What might not be made has no value in ONNX.
UNMADE: dict[str, tuple[Sequence[Row], str, str]] = {
    "one way of a branch": ([branch("x", YES)], "y", "one of its branches leaves 'y'"),
    "a loop that may have no round": (
        [START, loop([*COUNT, add("sum", 1, "y")], condition=BELOW_FOUR)], "y",
        "its rounds may leave 'y'",
    ),
    "a condition that a round may not make": (
        [START, loop([*COUNT, *stop("loopContinue"), add("sum", 1, "late")],
                     condition=[add("late", 1, "go")], maxLoopIterations=9)], "sum",
        "surely makes 'late'",
    ),
    "a condition": (
        [START, loop(COUNT, condition=[add("sum", 0, "other")])], "sum", "surely makes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNMADE)
def test_unmade(name: str) -> None:
    rows, expected, message = UNMADE[name]
    with pytest.raises(UnsupportedLayersError, match=message):
        exported(network(*rows), {"x": np.zeros(1, np.float32)}, [expected])


@pytest.mark.parametrize("kind", ["loopBreak", "loopContinue"])
def test_break_outside_of_a_loop(kind: str) -> None:
    with pytest.raises(SpecError, match=f"{kind} '{kind}_0' is not inside a loop"):
        exported(network((kind, [], [], {})), {}, [])
