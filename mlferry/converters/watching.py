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
from types import TracebackType
from typing import Literal

Reason = Literal["", "seconds", "idle", "memory"]

_TICK = 0.02  # seconds between two checks
_REST = 0.5  # seconds without a watch after which the watching thread ends


class Watch:
    """Ends a process group that exceeds a limit while the block runs.

    Without `/proc`, only the time is watched.

    Args:
        process: the leader of the group.
        seconds: that the block may last.
        idle: seconds that it may last without any use of the processor.
        memory: bytes that a process of the group may take; see `resident`.

    Attributes:
        reason: which limit ended the process; empty while none has.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], seconds: float, idle: float, memory: int
    ) -> None:
        self.reason: Reason = ""
        self._process, self._seconds, self._idle = process, seconds, idle
        self._memory = memory
        self._spent = self._rested = self._used = 0.0
        self._before = time.monotonic()

    def __enter__(self) -> Watch:
        self._before = time.monotonic()
        _WATCHES.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _WATCHES.remove(self)  # nothing is killed after the block

    def look(self) -> None:
        """Kill the process if it exceeds a limit now."""
        if self.reason:
            return
        now = time.monotonic()
        passed = min(now - self._before, 1.0)  # longer if this process itself was stopped
        self._before = now
        self._spent, self._rested = self._spent + passed, self._rested + passed
        busy = _processor_seconds(self._process.pid)
        if busy is None or busy > self._used:
            self._rested, self._used = 0.0, busy or 0.0
        self.reason = self._exceeded(self._spent, self._rested)
        if self.reason:
            kill(self._process)

    def _exceeded(self, spent: float, rested: float) -> Reason:
        if spent > self._seconds:
            return "seconds"
        if rested > self._idle:
            return "idle"
        return "memory" if resident(self._process.pid) > self._memory else ""


class _Watches:
    """All watches whose blocks run, and the thread that looks at them.

    There is one thread for all, as most blocks are shorter than it takes to start one. It ends when
    there has been nothing to watch for a while.
    """

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Start anew, as a child has none of the threads of its parent."""
        self._all: set[Watch] = set()
        self._changed = threading.Condition()
        self._is_watched = False

    def add(self, watch: Watch) -> None:
        with self._changed:
            self._all.add(watch)
            if self._is_watched:
                self._changed.notify()
                return
            self._is_watched = True
            try:
                threading.Thread(target=self._look, name="mlferry-watch", daemon=True).start()
            except BaseException:
                self._all.remove(watch)
                self._is_watched = False
                raise

    def remove(self, watch: Watch) -> None:
        with self._changed:
            self._all.discard(watch)

    def _look(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._changed, contextlib.ExitStack() as ending:
                ending.callback(self._end)
                if not self._changed.wait_for(lambda: self._all, _REST):
                    return
                for watch in self._all:
                    watch.look()
                ending.pop_all()  # it goes on: there was no error

    def _end(self) -> None:
        self._is_watched = False


_WATCHES = _Watches()


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
        return [pid, *map(int, _read(f"/proc/{pid}/task/{pid}/children").split())]
    return [pid]


def _own_bytes(pid: int) -> int:
    """The resident memory, without files such as the code of libraries."""
    with contextlib.suppress(OSError, ValueError):
        pages = _read(f"/proc/{pid}/statm").split()
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
        # the name of the program, in parentheses, may have spaces
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return int(fields[11]) + int(fields[12])
    return None


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:  # noqa: PTH123 - `Path.read_bytes` takes twice as long
        return stream.read()
