"""Workers, limits and packages on a system without fork, /proc and resource limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("tests/models/test_workers.py", "tests/spec/test_package.py", "tests/test_limits.py")
OWN = "not pipes and not killed and not memory"  # tests that need such a system themselves


def test_what_depends_on_the_system() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.platforms.bare", "-p",
         "no:cacheprovider", "-k", OWN, *FILES],
        check=False, cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "MLFERRY_FEW_ORACLES": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
