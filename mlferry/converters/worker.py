"""The main program of `mlferry.converters.isolated`: `python worker.py MODULE.py [PIPE]`.

Answers requests by the functions in `CALLS` of the module, which is loaded from its file: nothing
of mlferry is imported but by the module itself. A module with `EACH_APART = True` gets a fresh
process for every request, as one may damage what the next would use. The process ends as soon as
the other end of the pipe is closed, by the end of the caller at the latest.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
from types import ModuleType
from typing import Any, BinaryIO

# What may be reserved beyond what may be used, which the caller watches: threads and allocators
# reserve address space by the gigabyte. A request for more at once fails here.
_RESERVED = 16 << 30


def _used() -> int:
    """The bytes of this process's address space, if the system reports them."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        # avoids importing pathlib in a process that is started for a file
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            return int(stream.read().split()[0]) * resource.getpagesize()
    return 0


def _allow(seconds: float, memory: int) -> None:
    """Limit the additional processor time of this process, and its total address space."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for kind, limit in ((resource.RLIMIT_CPU, most), (resource.RLIMIT_AS, memory)):
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def _loaded(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("answering", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["answering"] = module
    spec.loader.exec_module(module)
    module.load()
    return module


def _write(target: BinaryIO, answer: dict[str, Any], *parts: bytes) -> None:
    target.write(json.dumps(answer).encode() + b"\n")
    for part in parts:
        target.write(part)
    target.flush()


def _answer(
    module: ModuleType, header: dict[str, Any], parts: list[bytes], memory: int, target: BinaryIO
) -> None:
    _allow(header["seconds"], memory)
    try:
        output = module.CALLS[header["call"]](header["request"], *parts)
    except MemoryError:
        _write(target, {"memory": True})
    except Exception as error:
        _write(target, {"error": str(error)[:2000]})
    else:
        _write(target, {"sizes": [len(part) for part in output]}, *output)


def _answer_apart(
    module: ModuleType, header: dict[str, Any], parts: list[bytes], memory: int, target: BinaryIO
) -> None:
    """Answer in a child process; if it dies, report how."""
    source, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(source)
            with os.fdopen(write, "wb") as stream:
                _answer(module, header, parts, memory, stream)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(source, "rb") as stream:
        output = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        _write(target, {"died": code})
    else:
        target.write(output)
        target.flush()


def _end_with_caller(pipe: int) -> None:
    """End the group of this process when nobody can write to a pipe any more.

    Uses a signal of the system if there is one: no library can delay it, and it also ends a stopped
    process.
    """
    import fcntl
    import select

    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
        if select.select([pipe], [], [], 0)[0]:  # it was already closed
            os._exit(1)
    else:
        threading.Thread(target=_wait_for_end, args=(pipe,), daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)


def serve(path: str, source: BinaryIO, target: BinaryIO) -> None:
    """Answer requests until the input ends."""
    sys.path[:] = json.loads(source.readline())["sys_path"]
    module = _loaded(path)
    _write(target, {"ready": True})
    apart = getattr(module, "EACH_APART", False)
    while line := source.readline():
        header = json.loads(line)
        parts = [source.read(size) for size in header["sizes"]]
        memory = _used() + header["memory"] + _RESERVED
        if apart and hasattr(os, "fork"):
            _answer_apart(module, header, parts, memory, target)
        else:
            _answer(module, header, parts, memory, target)
            if apart:  # the next request starts another process
                return


if __name__ == "__main__":
    for given in sys.argv[2:]:
        _end_with_caller(int(given))
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
