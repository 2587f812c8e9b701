"""A pytest plugin: this process looks like one of a system without what only POSIX or Linux have.

There is no fork and no resource module, nothing can be read in /proc, and two packages cannot
change places in one step.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import mlferry.spec.package

FUNCTIONS = ("fork", "forkpty", "register_at_fork", "mkfifo", "sched_getaffinity", "getloadavg")
SIGNALS = ("SIGXCPU", "SIGXFSZ", "SIGALRM", "SIGSTOP", "SIGCONT")
MODULES = ("resource", "fcntl", "pwd", "grp")


def _no_proc(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", str(arguments[0]))


for module, names in ((os, FUNCTIONS), (signal, SIGNALS)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in MODULES:
    sys.modules[name] = None  # type: ignore[assignment] # importing it raises
sys.addaudithook(_no_proc)
mlferry.spec.package._exchanged = lambda one, two: False
