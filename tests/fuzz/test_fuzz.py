"""A slice of the fuzzers, and every input that once showed a fault."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import FAULTS, mutant, outcome, run

SLICE = 25  # inputs a reader
KEPT = sorted(FAULTS.iterdir())


@pytest.mark.parametrize("name", READERS)
def test_a_slice(name: str) -> None:
    found, faults = run(name, seed=1, count=SLICE)
    assert faults == []
    assert sum(found.values()) == SLICE
    assert found["read"] < SLICE, "nothing was broken"


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_what_once_showed_a_fault(path: Path) -> None:
    """Files are called after their reader, what was wrong, and their number."""
    name = path.name.split(".")[0].replace("_", " ")
    assert not outcome(name, path.read_bytes()).startswith("FAULT")


def test_inputs_are_the_same_on_every_run() -> None:
    seeds = READERS["layers"].seeds()
    made = [mutant("layers", seeds, 1, index) for index in range(50)]
    random.seed()
    assert made == [mutant("layers", seeds, 1, index) for index in range(50)]
    assert len(set(made)) > 40
