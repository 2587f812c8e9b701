"""Every row of the runtime's tables as a program, in float32, at three opsets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError, UnsupportedLayersError
from mlferry.exporters.program import ProgramOptions, to_program
from mlferry.layers.definitions import DEFINITIONS
from mlferry.layers.programs import PROGRAM_OPS
from mlferry.spec.proto import model_pb2
from tests.exporters.onnx.support import spec_of
from tests.exporters.program.support import checked, read_by_coremltools, results
from tests.layers.case import Case, network
from tests.layers.test_kernels import CASES

OPSETS = (5, 7, 8)  # the oldest, and those that brought new versions of ops


def model_of(case: Case) -> model_pb2.Model:
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    shapes = {f"x{index}": x.shape for index, x in enumerate(case.inputs)}
    return spec_of(model, shapes, list(model.layers[0].output))


def is_valid(case: Case) -> bool:
    """Whether a row is a model: a few have parameters that only the runtime takes."""
    try:
        mlferry.MLModel(model_of(case))
    except MlferryError:
        return False
    return True


VALID = [case for case in CASES if is_valid(case)]

# What no op can say, by kind and inputs.
REFUSED = {
    **{("NonMaximumSuppression", n): "its thresholds, or its number of boxes" for n in (3, 4, 5)},
    ("cumSum", 2): "its axis is computed",
    **{("sliceDynamic", n): "its strides are computed" for n in (4, 5, 6)},
    ("sliceDynamic", 7): "the rank of its result depends on data",
}


def refusal(case: Case, opset: int) -> str:
    if case.kind == "NonMaximumSuppression" and opset >= 7 and len(case.inputs) == 2:
        is_above = case.params.get("scoreThreshold", 0) > 0
        return "" if is_above else "nothing tells how many boxes stay, but where it is above 0"
    return REFUSED.get((case.kind, len(case.inputs)), "")


def random(case: Case) -> bool:
    entry = PROGRAM_OPS.find(case.kind)
    return entry is not None and bool(entry.options.get("random"))


def clipped(case: Case) -> bool:
    """Networks clip the sums of a simple recurrent layer at 50, and programs do not."""
    activation: Any = case.params.get("activation", {})
    return case.kind == "simpleRecurrent" and "linear" in activation


@pytest.mark.parametrize(
    ("number", "case"), list(enumerate(VALID)), ids=[str(case) for case in VALID]
)
def test_row(number: int, case: Case, tmp_path: Path) -> None:
    opsets = (OPSETS[0], OPSETS[1 + number % 2])
    for opset in opsets:
        spec, options = model_of(case), ProgramOptions(half=False, at_least=opset)
        refused = refusal(case, opset)
        if refused:
            with pytest.raises(UnsupportedLayersError, match=refused) as error:
                to_program(spec, options)
            assert [(name, kind) for name, kind, _ in error.value.layers] == [("it", case.kind)]
            continue
        model, weights = to_program(spec, options)
        assert model.specificationVersion >= opset + 1
        program = checked(mlferry.MLModel(spec).with_spec(model, weights=weights))
        check_values(case, program)
        if opset == opsets[number // 2 % 2] or refusal(case, 7):  # one a row, to save time
            read_by_coremltools(program, tmp_path)
            path = tmp_path / "model.mlpackage"
            again = mlferry.MLModel(path, engine="onnxruntime", threads=1)
            assert again.spec.SerializeToString(deterministic=True) == model.SerializeToString(
                deterministic=True
            )
            check_values(case, again)


HALF = [  # every kind, and of its rows each second
    (case, opset)
    for number, (case, opset) in enumerate(zip(VALID, OPSETS * len(VALID), strict=False))
    if not refusal(case, opset) and (number % 2 or VALID[number - 1].kind != case.kind)
]


@pytest.mark.parametrize(("case", "opset"), HALF, ids=[str(case) for case, _ in HALF])
def test_row_in_half_precision(case: Case, opset: int) -> None:
    """It is valid, and near the values; `exp2` of 40 is beyond float16."""
    spec = model_of(case)
    model, weights = to_program(spec, ProgramOptions(at_least=opset))
    program = checked(mlferry.MLModel(spec).with_spec(model, weights=weights))
    inputs = {f"x{index}": x for index, x in enumerate(case.inputs)}
    names = [f"y{index}" for index in range(len(case.expected))]
    for actual, expected in zip(results(program, inputs, names), case.expected, strict=True):
        assert actual.dtype == np.float32
        assert actual.shape == expected.shape
        if not random(case) and not clipped(case):
            held = np.where(np.abs(expected) > 65504, np.copysign(np.inf, expected), expected)
            span = float(np.abs(held[np.isfinite(held)]).max(initial=1e-3))
            np.testing.assert_allclose(actual, held, 0.02, 0.02 * span)


def check_values(case: Case, model: mlferry.MLModel) -> None:
    inputs = {f"x{index}": x for index, x in enumerate(case.inputs)}
    names = [f"y{index}" for index in range(len(case.expected))]
    for actual, expected in zip(results(model, inputs, names), case.expected, strict=True):
        assert actual.dtype == np.float32
        assert actual.shape == expected.shape
        if not random(case) and not clipped(case):
            np.testing.assert_allclose(actual, expected, case.tolerance, case.tolerance)


def test_tables_have_rows_of_every_kind() -> None:
    control = {"branch", "loop", "loopBreak", "loopContinue"}
    kinds = {case.kind for case in VALID}
    assert kinds | control | {"custom"} == set(DEFINITIONS)


def test_every_kind_has_a_function() -> None:
    control = {"branch", "loop", "loopBreak", "loopContinue"}
    assert set(PROGRAM_OPS) | control | {"custom"} == set(DEFINITIONS)
    assert not set(PROGRAM_OPS) & (control | {"custom"})


# Random kinds: the values of 10,000 draws have this mean and this standard deviation.
DRAWS: dict[str, tuple[dict[str, Any], float, float]] = {
    "randomNormalStatic": ({"mean": 2.0, "stdDev": 0.5, "outputShape": [100, 100]}, 2.0, 0.5),
    "randomUniformStatic": ({"minVal": -1.0, "maxVal": 3.0, "outputShape": [100, 100]}, 1, 1.1547),
    "randomBernoulliStatic": ({"prob": 0.25, "outputShape": [100, 100]}, 0.25, 0.433),
    "randomNormalLike": ({"mean": -2.0, "stdDev": 3.0}, -2.0, 3.0),
    "randomUniformLike": ({"minVal": 0.0, "maxVal": 1.0}, 0.5, 0.2887),
    "randomBernoulliLike": ({"prob": 0.9}, 0.9, 0.3),
}


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("kind", DRAWS)
def test_draws(kind: str, engine: str) -> None:
    params, mean, deviation = {**DRAWS[kind][0], "seed": -1}, *DRAWS[kind][1:]
    inputs = 1 if kind.endswith("Like") else 0
    model = network(kind, params, inputs, 1)
    other = model.layers.add()
    other.CopyFrom(model.layers[0])  # the same again is no repetition
    other.name, other.output[0] = "other", "y1"
    spec = spec_of(model, {"x0": (100, 100)} if inputs else {}, ["y0", "y1"])
    network_model = mlferry.MLModel(spec, engine=engine)
    program = checked(mlferry.to_program(network_model, compute_precision="float32"))
    sample = {"x0": np.zeros((100, 100), np.float32)} if inputs else {}
    drawn = results(program, sample, ["y0", "y1"])
    assert not np.array_equal(*drawn)
    for values in drawn:
        assert values.shape == (100, 100)
        assert abs(values.mean() - mean) < 0.1 * max(deviation, 0.5)
        assert abs(values.std() - deviation) < 0.1 * max(deviation, 0.5)
