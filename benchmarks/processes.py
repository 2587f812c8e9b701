"""Work that is measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds, and bytes of memory at the peak beyond those before."""
    before = peak = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        start = time.perf_counter()
        kept = work()
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watching.join()
    peak = max(peak, resident())
    del kept
    return {"seconds": seconds, "bytes": float(peak - before)}


def apart(script: str, task: str, *arguments: str) -> Any:
    """What `script --task task arguments` prints as JSON in its last line, in its own process."""
    command = [sys.executable, script, "--task", task, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{task} {' '.join(arguments)} failed:\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])
