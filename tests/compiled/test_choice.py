"""When the compiled kernels are used, and what happens without Numba."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.compiled import is_active, is_available, using
from mlferry.layers.builder import Builder

NETWORK = """
import sys
import numpy as np
from mlferry.layers.builder import Builder
import mlferry

builder = Builder()
builder.input("x", (1, 16, 9, 9))
builder.layer(
    "convolution", "conv", ["x"], ["y"], outputChannels=16, kernelChannels=16, nGroups=1,
    kernelSize=(3, 3), stride=(1, 1), valid={}, weights=np.ones((16, 16, 3, 3), np.float32),
)
builder.output("y")
spec, x = builder.model(), np.ones((1, 16, 9, 9), np.float32)
"""


def ran(code: str, **environment: str) -> str:
    """What a new process prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", NETWORK + code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


SHOW = "print(mlferry.MLModel(spec, compiled={}).predict({{'x': x}})['y'].mean())"


@pytest.mark.parametrize(
    "numba",
    [
        "sys.modules['numba'] = None",  # as if it were not installed
        "sys.modules['numba.core.config'] = None",  # as if it did not go with others
    ],
)
def test_without_numba_everything_runs_on_numpy(numba: str) -> None:
    assert ran(f"{numba}\n{SHOW.format(None)}") == "144.0"
    refused = f"""{numba}
try:
    mlferry.MLModel(spec, compiled=True)
except mlferry.errors.MissingDependencyError as error:
    print(error)
"""
    assert "pip install 'mlferry[compiled]'" in ran(refused)


def test_numba_is_loaded_when_it_is_used_only() -> None:
    loaded = "\nprint('numba' in sys.modules)"
    assert ran("mlferry.MLModel(spec)" + loaded) == "False"
    assert ran(SHOW.format(False) + loaded).split() == ["144.0", "False"]


@pytest.mark.skipif(not is_available(), reason="Numba is not installed")
def test_numba_is_used_where_it_is_installed() -> None:
    loaded = "\nprint('mlferry.compiled.windows' in sys.modules)"
    for choice in (None, True):
        assert ran(SHOW.format(choice) + loaded).split() == ["144.0", "True"]


@pytest.mark.skipif(not is_available(), reason="Numba is not installed")
def test_what_is_compiled_is_kept(tmp_path: Path) -> None:
    """In a folder that the user chose; a second process writes nothing."""
    kept = []
    for _ in range(2):
        assert ran(SHOW.format(True), NUMBA_CACHE_DIR=str(tmp_path)) == "144.0"
        files = sorted(tmp_path.rglob("*.nbc"))
        kept.append({path: path.stat().st_mtime_ns for path in files})
    assert kept[0]
    assert kept[0] == kept[1]


@pytest.mark.skipif(not is_available(), reason="Numba is not installed")
def test_no_folder_may_be_written() -> None:
    """Then it is compiled in every process."""
    refused = """
import tempfile
def refuse(*arguments, **options):
    raise PermissionError("read-only")
tempfile.TemporaryFile = refuse
"""
    assert ran(refused + SHOW.format(True)) == "144.0"


@pytest.mark.parametrize("choice", [None, False])
def test_a_choice_holds_inside_of_its_block(choice: bool | None) -> None:
    before = is_active()
    with using(choice):
        assert is_active() is (is_available() if choice is None else choice)
    assert is_active() is before


@pytest.mark.parametrize("suffix", [".mlmodel", ".mlpackage"])
def test_a_model_keeps_its_choice(suffix: str, tmp_path: Path) -> None:
    """Results of both ways differ in their last bits, and each is the same in every run."""
    builder = Builder()
    builder.input("x", (1, 24, 20, 20))
    weights = np.random.default_rng(0).normal(0, 1, (24, 24, 5, 5))
    builder.layer(
        "convolution", "conv", ["x"], ["y"], outputChannels=24, kernelChannels=24, nGroups=1,
        kernelSize=(5, 5), stride=(1, 1), same={}, weights=weights,
    )  # fmt: skip
    builder.output("y")
    model = mlferry.MLModel(builder.model())
    if suffix == ".mlpackage":
        model = mlferry.to_program(model, compute_precision="float32")
    path = tmp_path / f"model{suffix}"
    model.save(path)
    x = np.random.default_rng(1).normal(0, 1, (1, 24, 20, 20)).astype(np.float32)
    results = {}
    for choice in (False, None):
        model = mlferry.MLModel(path, compiled=choice)
        first, second = (model.predict({"x": x})["y"] for _ in range(2))
        np.testing.assert_array_equal(first, second)
        results[choice] = first
    np.testing.assert_allclose(results[False], results[None], rtol=1e-4, atol=1e-4)
    assert np.array_equal(results[False], results[None]) is not is_available()
