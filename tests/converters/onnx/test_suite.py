"""The node suite of the onnx package: none differs, and the ledger lists what is refused."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.converters.onnx import suite

AT_LEAST = 1520


@pytest.fixture(scope="module")
def outcomes() -> list[suite.Outcome]:
    return list(suite.outcomes())


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
    matches = [suite.run(case, freeze=False) for case in numeric[::2]]
    assert [o for o in matches if o.result in ("differs", "crashed")] == []
