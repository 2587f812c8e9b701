"""Branches and loops as `cond` and `while_loop`, with what must come out counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.errors import SpecError, UnsupportedLayersError
from mlferry.exporters.program import ProgramOptions, to_program
from tests.exporters.onnx.support import spec_of
from tests.exporters.onnx.test_control_flow import CASES, UNMADE
from tests.exporters.program.support import checked, kinds, read_by_coremltools
from tests.runtime.test_control_flow import (
    BELOW_FOUR,
    COUNT,
    START,
    Row,
    add,
    branch,
    copy,
    loop,
    network,
)

LESS: list[Row] = [("lessThan", ["sum"], ["go"], {"alpha": 100})]
DOUBLED: list[Row] = [("add", ["sum", "sum"], ["more"], {}), copy("more", "sum")]

# Rows that the exporter to ONNX does not have.
MORE: dict[str, tuple[Sequence[Row], str, dict[str, float | list[float]], list[float]]] = {
    "two loops, one after the other": (
        [START, loop(COUNT, maxLoopIterations=2), loop(DOUBLED, maxLoopIterations=3)], "sum",
        {"x": 1}, [24],
    ),
    "a loop in a branch": (
        [START, branch("c", [loop(DOUBLED, condition=LESS)])], "sum", {"x": 3, "c": 1}, [192],
    ),
    "a loop in a branch that is not taken": (
        [START, branch("c", [loop(DOUBLED, condition=LESS)])], "sum", {"x": 3, "c": 0}, [3],
    ),
    "a branch in a loop": (
        [START, loop([("lessThan", ["sum"], ["low"], {"alpha": 10}),
                      branch("low", DOUBLED, COUNT)], maxLoopIterations=5)], "sum", {"x": 3}, [15],
    ),
    "a count as large as that of the input": (
        [START, loop(COUNT, ["n"])], "sum", {"x": 0, "n": 7}, [7],
    ),
    "a break in both ways": (
        [START, loop([*COUNT, branch("c", [*DOUBLED, ("loopBreak", [], [], {})],
                                     [("loopBreak", [], [], {})]), *COUNT], maxLoopIterations=9)],
        "sum", {"x": 4, "c": 1}, [10],
    ),
    "a vector that grows under a condition": (
        [copy("x", "list"), copy("x", "sum"),
         loop([("concatND", ["list", "sum"], ["longer"], {"axis": 0}), copy("longer", "list"),
               *COUNT], condition=BELOW_FOUR)], "list", {"x": 1}, [1, 1, 2, 3],
    ),
    "a vector that doubles": (
        [copy("x", "list"),
         loop([("concatND", ["list", "list"], ["longer"], {"axis": 0}), copy("longer", "list")],
              maxLoopIterations=3)], "list", {"x": [1, 2]}, [1, 2] * 8,
    ),
    "a truth value that is carried": (
        [START, ("lessThan", ["x"], ["flag"], {"alpha": 4}),
         loop([*COUNT, ("lessThan", ["sum"], ["flag"], {"alpha": 2})], maxLoopIterations=2),
         branch("flag", [add("sum", 10, "y")], [add("sum", 20, "y")])], "y", {"x": 0}, [22],
    ),
    "a branch that makes a truth value or a number": (
        [branch("c", [("lessThan", ["x"], ["y"], {"alpha": 4})], [add("x", 0.5, "y")])], "y",
        {"c": 0, "x": 1}, [1.5],
    ),
    "a blob of the ways that nothing reads": (
        [branch("c", [add("x", 1, "y"), add("x", 2, "unused")], [add("x", 3, "y")])], "y",
        {"c": 1, "x": 1}, [2],
    ),
}  # fmt: skip
ALL = CASES | MORE
NO_MODEL = {"loop of no rounds"}  # the format's rules ask for something that ends a loop


@pytest.mark.parametrize("opset", [5, 8])
@pytest.mark.parametrize("name", [name for name in ALL if name not in NO_MODEL])
def test_flow(name: str, opset: int, tmp_path: Path) -> None:
    rows, expected, inputs, result = ALL[name]
    sample = {blob: np.atleast_1d(np.float32(value)) for blob, value in inputs.items()}
    spec = spec_of(network(*rows), {blob: x.shape for blob, x in sample.items()}, [expected])
    source = mlferry.MLModel(spec)
    assert source.predict(sample)[expected].tolist() == result
    converted, weights = to_program(spec, ProgramOptions(half=False, at_least=opset))
    program = checked(source.with_spec(converted, weights=weights))
    read_by_coremltools(program, tmp_path)
    again = mlferry.MLModel(tmp_path / "model.mlpackage", engine="onnxruntime", threads=1)
    converted, weights = to_program(spec, ProgramOptions(half=True, at_least=opset))
    half = checked(source.with_spec(converted, weights=weights))
    read_by_coremltools(half, tmp_path)
    for model in (program, again, half):
        assert model.predict(sample)[expected].tolist() == result


@pytest.mark.parametrize("name", UNMADE)
def test_unmade(name: str) -> None:
    rows, expected, message = UNMADE[name]
    with pytest.raises(UnsupportedLayersError, match=message):
        to_program(spec_of(network(*rows), {"x": (1,)}, [expected]), ProgramOptions())


@pytest.mark.parametrize("kind", ["loopBreak", "loopContinue"])
def test_break_outside_of_a_loop(kind: str) -> None:
    spec = spec_of(network((kind, [], [], {}), add("x", 1, "y")), {"x": (1,)}, ["y"])
    with pytest.raises(SpecError, match=f"{kind} '{kind}_0' is not inside a loop"):
        to_program(spec, ProgramOptions())


@pytest.mark.parametrize("open_places", [0, 1, 3])
def test_masks_beyond_half_precision_in_loops_and_branches(open_places: int) -> None:
    """A loop carries -1e9 as float32; cast to half, infinities alone would have no softmax."""
    weighed: list[Row] = [
        ("addBroadcastable", ["y", "hidden"], ["scores"], {}),
        ("softmaxND", ["scores"], ["weights"], {"axis": -1}),
        ("multiplyBroadcastable", ["weights", "mask"], ["y"], {}),
        ("activation", ["hidden"], ["next"], {"linear": {"alpha": 1.0, "beta": 0.0}}),
        copy("next", "hidden"),
    ]
    rows = [
        ("activation", ["mask"], ["hidden"], {"linear": {"alpha": 1e9, "beta": -1e9}}),
        copy("x", "y"),
        loop(weighed, maxLoopIterations=3),
        branch("c", weighed),
    ]
    spec = spec_of(network(*rows), {"x": (1, 3), "mask": (1, 3), "c": (1,)}, ["y"])
    source = mlferry.MLModel(spec)
    half, weights = to_program(spec, ProgramOptions())
    program = checked(source.with_spec(half, weights=weights))
    sample = {
        "x": np.float32([[0.5, -1, 2]]), "mask": np.float32(np.arange(3) < open_places)[None],
        "c": np.ones(1, np.float32),
    }  # fmt: skip
    right = source.predict(sample)["y"]
    np.testing.assert_allclose(program.predict(sample)["y"], right, atol=2e-3)


def test_axes_that_grow() -> None:
    rows = [copy("x", "y"), loop([("expandDims", ["y"], ["z"], {"axes": [0]}), copy("z", "y")],
                                 maxLoopIterations=2)]  # fmt: skip
    with pytest.raises(UnsupportedLayersError, match="changes the number of its axes"):
        to_program(spec_of(network(*rows), {"x": (1,)}, ["y"]), ProgramOptions())


def test_operations() -> None:
    rows, expected, inputs, _ = CASES["while"]
    spec = spec_of(network(*rows), dict.fromkeys(inputs, (1,)), [expected])
    model, _ = to_program(spec, ProgramOptions(half=False))
    assert kinds(model).count("while_loop") == 1
    rows, expected, inputs, _ = CASES["branch taken"]
    spec = spec_of(network(*rows), dict.fromkeys(inputs, (1,)), [expected])
    model, _ = to_program(spec, ProgramOptions(half=False))
    assert kinds(model).count("cond") == 1
