"""Every row of the runtime's tables, exported and run by onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from mlferry.errors import ExportError, UnsupportedLayersError
from tests.exporters.onnx.support import exported
from tests.layers.case import Case, network
from tests.layers.test_kernels import CASES

# Rows that ONNX cannot express, and what the error says.
REFUSED = {"sliceDynamic": "the rank of its result depends on data"}


def refused(case: Case) -> bool:
    """Seven inputs of a `sliceDynamic`: the last says which axes go."""
    return case.kind == "sliceDynamic" and len(case.inputs) == 7


@pytest.mark.parametrize("case", CASES, ids=str)
def test_row(case: Case) -> None:
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    inputs = {f"x{index}": x for index, x in enumerate(case.inputs)}
    names = list(model.layers[0].output)
    if refused(case):
        with pytest.raises(UnsupportedLayersError, match=REFUSED[case.kind]) as error:
            exported(model, inputs, names)
        assert [(name, kind) for name, kind, _ in error.value.layers] == [("it", case.kind)]
        return
    actual = exported(model, inputs, names)
    for name, expected in zip(names, case.expected, strict=True):
        result = actual[name]
        assert result.dtype == np.float32
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, case.tolerance, case.tolerance)


# What needs to know an extent that a row leaves open, by kind; everything else is worked out when
# the graph runs.
NEEDS_EXTENTS = {
    "cropResize": "whether boxes have 4 values or 5",
    "scatterND": "how many axes an index has",
    "gatherND": "how many axes an index has",
    "reshape": "the extents of the result",
    "upsample": "a fractional factor",
    "convolution": "outputShape for an input whose size is not known",
    "convolution3d": "for a volume whose size is not known",
    "tile": "the number of repetitions is unknown",
    "squeeze": "the rank of the result is not",
    "sliceDynamic": "the rank of its result depends on data",
    "fillDynamic": "the rank of output 'y0' is not known",
    "broadcastToDynamic": "the rank of output 'y0' is not known",
    "reshapeDynamic": "the rank of output 'y0' is not known",
    "randomNormalDynamic": "the rank of output 'y0' is not known",
    "randomUniformDynamic": "the rank of output 'y0' is not known",
    "randomBernoulliDynamic": "the rank of output 'y0' is not known",
}
OPEN = [case for case in CASES if case.inputs]


@pytest.mark.parametrize("case", OPEN, ids=str)
def test_row_of_open_shapes(case: Case) -> None:
    """With no extent of any input known, a row comes out the same, or is refused with a reason."""
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    inputs = {f"x{index}": x for index, x in enumerate(case.inputs)}
    names = list(model.layers[0].output)
    shapes = {name: [None] * x.ndim for name, x in inputs.items()}
    refusal = ""
    try:
        actual = exported(model, inputs, names, input_shapes=shapes)
    except ExportError as error:
        refusal = str(error)
    if refusal:
        assert NEEDS_EXTENTS[case.kind] in refusal
        return
    for name, expected in zip(names, case.expected, strict=True):
        assert actual[name].shape == expected.shape
        np.testing.assert_allclose(actual[name], expected, case.tolerance, case.tolerance)


def test_few_rows_need_extents() -> None:
    kinds = {case.kind for case in OPEN}
    assert set(NEEDS_EXTENTS) <= kinds
    assert len(kinds - set(NEEDS_EXTENTS)) > 120
