"""Watches the time and memory of one of our processes from outside.

The process that started another enforces its limits, because a process that sleeps, is stopped, or
has deadlocked threads cannot do so itself. Memory is what is written to; the address space, which
threads and allocators reserve by the gigabyte, says little about it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal

Reason = Literal["", "seconds", "idle", "memory"]

_TICK = 0.02  # seconds between two checks


class Watch:
    """Ends a process group that exceeds a limit while the block runs.

    Without `/proc`, only the time is watched.

    Args:
        process: the leader of the group.
        seconds: that the block may last.
        idle: seconds that it may last without any use of the processor.
        memory: bytes that a process of the group may take beyond what it takes now.

    Attributes:
        reason: which limit ended the process; empty while none has.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], seconds: float, idle: float, memory: int
    ) -> None:
        self.reason: Reason = ""
        self._process, self._seconds, self._idle = process, seconds, idle
        self._memory = memory + resident(process.pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="mlferry-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()  # nothing is killed after the block

    def _look(self) -> None:
        spent = rested = used = 0.0
        before = time.monotonic()
        while not self._over.wait(_TICK):
            now = time.monotonic()
            passed = min(now - before, 1.0)  # longer if this process itself was stopped
            before = now
            spent, rested = spent + passed, rested + passed
            busy = _processor_seconds(self._process.pid)
            if busy is None or busy > used:
                rested, used = 0.0, busy or 0.0
            self.reason = self._exceeded(spent, rested)
            if self.reason:
                kill(self._process)
                return

    def _exceeded(self, spent: float, rested: float) -> Reason:
        if spent > self._seconds:
            return "seconds"
        if rested > self._idle:
            return "idle"
        return "memory" if resident(self._process.pid) > self._memory else ""


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, which belong to its group."""
    if process.returncode is not None:
        return  # its number may belong to another process by now
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def resident(pid: int) -> int:
    """The private bytes in memory of a process, or of its largest child; 0 if unknown."""
    return max((_own_bytes(each) for each in _family(pid)), default=0)


def _family(pid: int) -> list[int]:
    """A process and its children."""
    with contextlib.suppress(OSError, ValueError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
        return [pid, *map(int, children.split())]
    return [pid]


def _own_bytes(pid: int) -> int:
    """The resident memory, without files such as the code of libraries."""
    with contextlib.suppress(OSError, ValueError):
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGESIZE")
    return 0


def _processor_seconds(pid: int) -> float | None:
    """The processor time of a process and its children; None if the system does not say."""
    results = [_ticks(each) for each in _family(pid)]
    if results[0] is None:
        return None
    return sum(ticks or 0 for ticks in results) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()  # the name of the program may have spaces
        return int(fields[11]) + int(fields[12])
    return None
