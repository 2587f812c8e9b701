"""What speaks with Apple's checker, beside a stand-in; and the checker where it was built.

`MLFERRY_APPLE_CHECKER` names it: see `tests.fuzz.apple`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlferry.models.problems import validate
from mlferry.spec.proto import model_pb2
from tests.fuzz.apple import ACCEPTED, Checker
from tests.fuzz.apple.__main__ import compared, seed_models

STAND_IN = f"""#!{sys.executable}
import struct, sys
while head := sys.stdin.buffer.read(8):
    data = sys.stdin.buffer.read(*struct.unpack("<Q", head))
    if not data:
        sys.exit(1)
    answer = b"" if len(data) > 9 else "zu kurz \\u00fc".encode()
    sys.stdout.buffer.write(struct.pack("<Q", len(answer)) + answer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """Accepts what is longer than 9 bytes, and dies of an empty model."""
    path = tmp_path / "checker"
    path.write_text(STAND_IN, encoding="utf-8")
    path.chmod(0o755)
    return path


def described(text: str) -> model_pb2.Model:
    spec = model_pb2.Model()
    spec.description.metadata.shortDescription = text
    return spec


def test_verdicts_and_a_checker_that_dies(stand_in: Path) -> None:
    with Checker(stand_in) as checker:
        assert checker.verdict(described("a long description")) == ACCEPTED
        assert checker.verdict(described("a")) == "zu kurz \u00fc"
        assert checker.verdict(model_pb2.Model()) == "crashed"
        assert checker.verdict(described("b")) == "zu kurz \u00fc"  # another process answers


def test_verdicts_are_compared(stand_in: Path) -> None:
    """The stand-in accepts every mutant: what is wrong is refused here alone."""
    with Checker(stand_in) as checker:
        counts, gaps = compared(checker, 200, 1)
    assert sum(counts.values()) == 200
    assert counts["accepted by Apple, accepted here"] > 50
    assert counts["accepted by Apple, error here"] > 20
    assert all(name.startswith("only we refuse") for name in gaps)


def test_seeds_cover_every_kind() -> None:
    kinds = {spec.WhichOneof("Type") for spec in seed_models()}
    every = {field.name for field in model_pb2.Model.DESCRIPTOR.oneofs_by_name["Type"].fields}
    assert every - kinds == {"mlProgram", "serializedModel", "identity"}


def test_apple_and_mlferry_agree() -> None:
    """Whatever Apple's checker refuses is refused here, of 3,000 mutants."""
    place = os.environ.get("MLFERRY_APPLE_CHECKER")
    if not place:
        pytest.skip(
            "MLFERRY_APPLE_CHECKER names no checker; tests.fuzz.apple tells how to build it"
        )
    with Checker(Path(place)) as checker:
        for spec in seed_models():
            told = [problem for problem in validate(spec) if problem.severity != "note"]
            assert told or checker.verdict(spec) == ACCEPTED
        _, gaps = compared(checker, 3000, 2)
    assert [name for name in gaps if name.startswith("only Apple")] == []
