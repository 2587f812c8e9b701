"""Every layer kind: values, rank and shape, in both mappings, and its shape rule."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

from mlferry.layers import definitions as shapes
from mlferry.layers.params import Params
from mlferry.runtime.evaluators.network import _is_apart
from mlferry.runtime.session import Session
from tests.layers import cases
from tests.layers.case import Case, network, run

CASES: list[Case] = [
    case
    for module in pkgutil.iter_modules(cases.__path__)
    for case in importlib.import_module(f"tests.layers.cases.{module.name}").CASES
]


def fits(rule: shapes.Shape, shape: tuple[int, ...]) -> bool:
    """Whether a shape is one that a rule allows."""
    return len(rule) == len(shape) and all(
        a is None or a == b for a, b in zip(rule, shape, strict=True)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer(case: Case) -> None:
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    assert Session(model).rank5 == (case.mapping == "rank5")
    actual = run(model, case.inputs)
    for result, expected in zip(actual, case.expected, strict=True):
        assert result.dtype == np.float32
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, case.tolerance, case.tolerance)
    params = Params.of(model.layers[0], rank5=case.mapping == "rank5")
    inferred = shapes.infer(params, [x.shape for x in case.inputs])
    if inferred is not None:
        assert all(map(fits, inferred, [result.shape for result in actual])), inferred


CLASSIC = [case for case in CASES if case.mapping == "rank5"]
APART = [
    case
    for case in CLASSIC
    if case.inputs and _is_apart(network(case.kind, case.params, 1, 1, case.mapping).layers[0])
]


def test_few_kinds_look_at_several_entries_of_the_batch_axis() -> None:
    kinds = {case.kind for case in CLASSIC}
    assert kinds - {case.kind for case in APART} == {"cropResize", "loadConstant"}


@pytest.mark.parametrize("case", APART, ids=str)
def test_entries_of_the_batch_axis_do_not_meet(case: Case) -> None:
    """Samples of a classic network side by side, along the batch axis, are samples apart."""
    model = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    joined = list(case.inputs)
    count = max(x.shape[1] for x in joined)
    if count == 1:  # another sample: whole numbers stay whole, as they may be indices
        others = [x[:, ::-1, ::-1] if np.array_equal(x, np.round(x)) else x / 2 for x in joined]
        joined = [np.concatenate(pair, axis=1) for pair in zip(joined, others, strict=True)]
        count = 2
    apart = [
        run(model, [x[:, i : i + 1] if x.shape[1] == count else x for x in joined])
        for i in range(count)
    ]
    for y, *entries in zip(run(model, joined), *apart, strict=True):
        if y.shape[1] == count:  # where it is not, results are not taken apart
            np.testing.assert_allclose(y, np.concatenate(entries, axis=1), 1e-4, 1e-5)
