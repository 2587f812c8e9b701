"""Every layer kind: values, rank and shape, in both mappings, and its shape rule."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

from mlferry.runtime.session import Session
from mlferry.spec import shapes
from mlferry.spec.params import Params
from tests.runtime import cases
from tests.runtime.case import Case, network, run

CASES: list[Case] = [
    case
    for module in pkgutil.iter_modules(cases.__path__)
    for case in importlib.import_module(f"tests.runtime.cases.{module.name}").CASES
]


def fits(rule: shapes.Shape, shape: tuple[int, ...]) -> bool:
    """Whether a shape is one that a rule allows."""
    return len(rule) == len(shape) and all(
        a is None or a == b for a, b in zip(rule, shape, strict=True)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer(case: Case) -> None:
    made = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    assert Session(made).rank5 == (case.mapping == "rank5")
    found = run(made, case.inputs)
    for result, wanted in zip(found, case.expected, strict=True):
        assert result.dtype == np.float32
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, case.tolerance, case.tolerance)
    params = Params.of(made.layers[0], rank5=case.mapping == "rank5")
    inferred = shapes.infer(params, [x.shape for x in case.inputs])
    if inferred is not None:
        assert all(map(fits, inferred, [result.shape for result in found])), inferred
