"""A slice of the fuzzers, and every input that once showed a fault."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.run import FAULTS, outcome, run, seeds_of

SLICE = 25  # inputs a reader
KEPT = sorted(FAULTS.iterdir())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file with the seeds of each reader; one process makes all, as it loads TensorFlow."""
    folder = tmp_path_factory.mktemp("seeds")
    result = {}
    for name, seeds in seeds_of(READERS).items():
        result[name] = folder / name
        result[name].write_bytes(pickle.dumps(seeds))
    return result


@pytest.mark.parametrize("name", READERS)
def test_a_slice(name: str, kept: dict[str, Path]) -> None:
    actual, faults = run(name, seed=1, count=SLICE, kept=kept[name])
    assert faults == []
    assert sum(actual.values()) == SLICE
    assert actual["read"] < SLICE, "nothing was broken"


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_what_once_showed_a_fault(path: Path) -> None:
    """Files are called after their reader, what was wrong, and their number."""
    name = path.name.split(".")[0].replace("_", " ")
    assert not outcome(name, path.read_bytes()).startswith("FAULT")


MUTANTS = """
import hashlib, sys
from tests.fuzz.run import mutant, seeds_of
name = sys.argv[1]
seeds = seeds_of([name])[name]
made = [mutant(name, seeds, 1, index) for index in range(50)]
print(len(set(made)), hashlib.sha256(b"".join(made)).hexdigest())
"""


@pytest.mark.parametrize("name", ["layers", "package", "onnx"])
def test_inputs_are_the_same_on_every_run(name: str) -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", MUTANTS, name],
            capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(answers) == 1
    assert int(answers.pop().split()[0]) > 30
