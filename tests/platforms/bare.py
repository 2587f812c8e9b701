"""A pytest plugin: this process looks like one of a system without what only POSIX or Linux have.

There is no fork and no resource module, nothing can be read in /proc, files cannot change places in
one step, and names of files that differ by their case alone are one file.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

import mlferry.spec.package

NOT_THERE = (
    "fork", "forkpty", "register_at_fork", "mkfifo", "sched_getaffinity",
    "getloadavg",
)  # fmt: skip
SIGNALS = ("SIGXCPU", "SIGXFSZ", "SIGALRM", "SIGSTOP", "SIGCONT")
MODULES = ("resource", "fcntl", "pwd", "grp")


def _no_proc(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))


def _without_case() -> None:
    """Let a path that is to be written find the file of another case."""
    real = os.open

    def opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        folder, name = os.path.split(os.fspath(path))
        if flags & os.O_CREAT and isinstance(name, str) and os.path.isdir(folder or "."):
            alike = [n for n in os.listdir(folder or ".") if n.lower() == name.lower()]
            path = os.path.join(folder, alike[0]) if alike else path
        return real(path, flags, *more, **named)

    os.open = opened  # type: ignore[assignment] # takes what the real one takes


for name in NOT_THERE:
    if hasattr(os, name):
        delattr(os, name)
for name in SIGNALS:
    if hasattr(signal, name):
        delattr(signal, name)
for name in MODULES:
    sys.modules[name] = None  # type: ignore[assignment] # importing it raises
sys.addaudithook(_no_proc)
_without_case()
mlferry.spec.package._exchanged = lambda one, two: False
assert builtins.open is not None
assert ctypes is not None
assert Path is not None
