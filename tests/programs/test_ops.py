"""What every op of the opsets computes, by formulas and naive loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.models.problems import validate
from mlferry.programs.definitions import DEFINITIONS

make: Any = pytest.importorskip("tests.programs.make", exc_type=ModuleNotFoundError)
rows: Any = pytest.importorskip("tests.programs.op_rows")

ROWS = rows.ROWS
IDS = [row.id for row in ROWS]
ELSEWHERE = {
    "const": "in every program",
    "classify": "test_features.py",
    "random_bernoulli": "test_features.py",
    "random_categorical": "test_features.py",
    "random_normal": "test_features.py",
    "random_uniform": "test_features.py",
    "read_state": "test_features.py",
    "_const_symbolic": "never written",
    "conv_quantized": "never written; no opset of Core ML documents it",
}


def compared(result: dict[str, Any], row: Any, spec: Any, close: float) -> None:
    with np.errstate(all="ignore"):
        wide = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in row.inputs]
        expected = row.want(*wide)
    outputs = expected if isinstance(expected, tuple) else (expected,)
    names = [feature.name for feature in spec.description.output]
    assert len(names) == len(outputs)
    for name, want in zip(names, outputs, strict=True):
        right = np.atleast_1d(np.asarray(want, np.float64))
        assert result[name].shape == right.shape
        scale = max(1.0, float(np.abs(right).max(initial=0)))
        np.testing.assert_allclose(result[name], right, atol=close * scale, rtol=0)


def given(row: Any) -> dict[str, Any]:
    return dict(zip(make.NAMES, row.inputs, strict=False))


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_values(row: Any, tmp_path: Path) -> None:
    model = make.model(row.build, row.inputs, tmp_path, row.since)
    assert row.op in str(model.spec)
    assert [str(problem) for problem in validate(model.spec, model.program_weights)] == []
    compared(model.predict(given(row)), row, model.spec, row.close)


HALVES = [row for row in ROWS if row.half]


@pytest.mark.parametrize("row", HALVES, ids=[row.id for row in HALVES])
def test_values_in_half_precision(row: Any, tmp_path: Path) -> None:
    """Rounded as the program says, and computed in float32 as it means."""
    model = make.model(row.build, row.inputs, tmp_path, row.since, half=True)
    actual = model.predict(given(row))
    compared(actual, row, model.spec, 4e-3)
    exact = model.with_precision("exact").predict(given(row))
    compared(exact, row, model.spec, max(row.close, 1e-3))  # constants are rounded once


# What coremltools describes wrongly where the first extent is open.
WRONG = {"reshape": "an extent that is kept, as 0", "squeeze": "an axis that goes, as still there"}
OPEN = [
    row for row in ROWS
    if row.inputs and all(x.ndim and x.dtype.kind == "f" for x in row.inputs) and row.half
    and row.op not in WRONG
]  # fmt: skip


@pytest.mark.parametrize("row", OPEN, ids=[row.id for row in OPEN])
def test_first_extent_may_vary(row: Any, tmp_path: Path) -> None:
    """The program is checked and runs where the first extent is open."""
    from coremltools.converters.mil.mil import get_new_symbol

    extent = get_new_symbol()
    inputs = [((extent, *x.shape[1:]), "fp32") for x in row.inputs]
    try:
        program = make.program(row.build, inputs, row.since)
        spec = make.message(program, row.since, tmp_path)
    except Exception:
        pytest.skip("coremltools needs the extent")
    for feature in spec.description.input:
        array = feature.type.multiArrayType
        index = make.NAMES.index(feature.name)
        array.ClearField("shape")
        array.shape.extend(row.inputs[index].shape)
        array.ClearField("ShapeFlexibility")
        for place, size in enumerate(row.inputs[index].shape):
            upper = 16 if place == 0 else size
            array.shapeRange.sizeRanges.add(lowerBound=1 if place == 0 else size, upperBound=upper)
    model = mlferry.MLModel(spec, weights_dir=tmp_path)
    compared(model.predict(given(row)), row, model.spec, row.close)


def test_no_op_is_forgotten() -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    known = set(SSAOpRegistry.core_ops)
    assert known - {row.op for row in ROWS} - ELSEWHERE.keys() == set()
    ours = set(DEFINITIONS)
    assert known - ours == {"_const_symbolic", "conv_quantized"}
    assert ours - known == {"write_state"}


def test_every_version_of_an_op_has_a_row() -> None:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    versions = set()
    for op, actual in SSAOpRegistry.core_ops.items():
        before = None
        for target in sorted(actual, key=lambda target: target.value):
            if actual[target] is not before and op not in ELSEWHERE:
                versions.add((op, max(5, int(target.name.removeprefix("iOS")) - 10)))
            before = actual[target]
    assert sorted(versions - {(row.op, row.since) for row in ROWS}) == []
