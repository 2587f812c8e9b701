"""The node suite of the onnx package: none differs, and the ledger lists what is refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mlferry.spec import networks
from tests.converters.onnx import suite
from tests.exporters.onnx.test_round_trip import both

AT_LEAST = 1520


@pytest.fixture(scope="module")
def attempts() -> list[suite.Attempt]:
    return list(suite.attempts())


@pytest.fixture(scope="module")
def outcomes(attempts: list[suite.Attempt]) -> list[suite.Outcome]:
    return [attempt.outcome for attempt in attempts]


def test_no_case_converts_and_differs(outcomes: list[suite.Outcome]) -> None:
    assert [o for o in outcomes if o.result in ("differs", "crashed")] == []


def test_enough_cases_agree(outcomes: list[suite.Outcome]) -> None:
    assert Counter(o.result for o in outcomes)["agrees"] >= AT_LEAST


def test_the_ledger_is_that_of_this_onnx_package(outcomes: list[suite.Outcome]) -> None:
    """A case that starts to pass or to fail changes it: run `make onnx-suite`."""
    written = suite.LEDGER.read_text(encoding="utf-8")
    if not written.startswith(suite.heading()):
        pytest.skip(f"the ledger is of another release: {written.splitlines()[0]}")
    assert written == suite.ledger(outcomes)


def test_unfrozen_cases_never_differ() -> None:
    """Every other one; `make onnx-suite` tries all."""
    numeric = [case for case in suite.cases() if suite.is_numeric(case)]
    matches = [suite.attempt(case, freeze=False).outcome for case in numeric[::2]]
    assert [o for o in matches if o.result in ("differs", "crashed")] == []


def test_exported_cases_agree(attempts: list[suite.Attempt]) -> None:
    """Every other one that converts comes back and agrees with the outputs of the suite."""
    done, problems = 0, []
    for case, model, inputs in ((a.case, a.model, a.inputs) for a in attempts[::2]):
        if model is None or networks.network_of(model.spec) is None:
            continue  # trees and the like have no ONNX ops here
        for actual in both(model, inputs):
            for got, expected in zip(actual, suite.arrays(case, 1), strict=True):
                problem = suite.difference(np.asarray(expected), got, case)
                problems += [f"{case.name}: {problem}"] if problem else []
        done += 1
    assert problems == []
    assert done > 750
