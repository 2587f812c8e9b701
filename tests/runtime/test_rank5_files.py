"""Files that Apple's own converter wrote, against the framework that they were made from."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import mlferry

DATA = os.environ.get("MLFERRY_DATA", "")
FILES = sorted(Path(DATA, "rank5_cases").glob("*.mlmodel")) if DATA else []


@pytest.mark.skipif(not FILES, reason="MLFERRY_DATA does not name a folder with rank5_cases")
@pytest.mark.parametrize("path", FILES or [Path("none")], ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    with np.load(path.with_suffix(".npz")) as data:
        inputs = {name[3:]: data[name] for name in data if name.startswith("in:")}
        expected = {name[4:]: data[name] for name in data if name.startswith("out:")}
        delta = float(data["delta"])
    actual = mlferry.MLModel(path).predict(inputs)
    assert isinstance(actual, dict)
    for name, value in expected.items():
        np.testing.assert_allclose(np.ravel(actual[name]), value.ravel(), rtol=0, atol=delta)
