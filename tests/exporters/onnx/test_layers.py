"""Every row of the runtime's tables, exported and run by onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from mlferry.errors import UnsupportedLayersError
from tests.exporters.onnx.support import exported
from tests.runtime.case import Case, network
from tests.runtime.test_kernels import CASES

# Rows that ONNX cannot express, and what the error says.
REFUSED = {"sliceDynamic": "the rank of its result depends on data"}


def refused(case: Case) -> bool:
    """Seven inputs of a `sliceDynamic`: the last says which axes go."""
    return case.kind == "sliceDynamic" and len(case.inputs) == 7


@pytest.mark.parametrize("case", CASES, ids=str)
def test_row(case: Case) -> None:
    made = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    given = {f"x{index}": x for index, x in enumerate(case.inputs)}
    names = list(made.layers[0].output)
    if refused(case):
        with pytest.raises(UnsupportedLayersError, match=REFUSED[case.kind]) as error:
            exported(made, given, names)
        assert [(name, kind) for name, kind, _ in error.value.layers] == [("it", case.kind)]
        return
    found = exported(made, given, names)
    for name, wanted in zip(names, case.expected, strict=True):
        result = found[name]
        assert result.dtype == np.float32
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, case.tolerance, case.tolerance)
