"""Compiled code is made when it is first needed, each kind of task for itself, and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry.compiled.windows import copy_pixels

_COPY = """
import sys
import numpy as np
from mlferry.compiled import arrays, planes, products, rows, sliding, tasks, winograd

if "copy" in sys.argv:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    y = np.zeros_like(x)
    tasks.copied(x, y)()
    assert (x == y).all()
"""


def compiled(folder: Path, *arguments: str) -> set[str]:
    """What a new process compiles that keeps it in a folder: modules and functions."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", _COPY, *arguments], env=environment, check=True)
    return {path.name.rsplit("-", 1)[0] for path in folder.rglob("*.nbi")}


def test_nothing_is_compiled_before_it_is_used(tmp_path: Path) -> None:
    assert compiled(tmp_path) == set()
    assert compiled(tmp_path, "copy") == {"tasks._go_through", "windows.copy_pixels"}


def test_what_was_compiled_is_read_again(tmp_path: Path) -> None:
    compiled(tmp_path, "copy")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    compiled(tmp_path, "copy")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")} == times


def test_a_kind_has_one_address() -> None:
    assert copy_pixels.address == copy_pixels.address > 0
    assert repr(copy_pixels) == "<copy_pixels>"
