"""The compiled kernels as other processors have them, with vectors of four and of eight lanes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

FILES = [
    Path(__file__).parent / f"test_{name}.py"
    for name in ("kernels", "planes", "sliding", "tasks", "winograd")
]


@pytest.mark.skipif(
    os.uname().machine != "x86_64" if hasattr(os, "uname") else False,
    reason="the other kinds of processors are named as those of x86",
)
@pytest.mark.parametrize(
    ("processor", "features"),
    [("generic", ""), ("haswell", "+avx,+avx2,+fma,+f16c")],
)
def test_other_processors(processor: str, features: str, tmp_path: Path) -> None:
    """The same rows pass."""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": processor,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *map(str, FILES)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
