"""What a process of `mlferry.converters.isolated` runs: `python worker.py MODULE.py`.

Answers requests by the functions in `CALLS` of the module, which is loaded from its file: nothing
of mlferry is imported but by the module itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from typing import Any, BinaryIO


def _used() -> int:
    """Bytes of address space that this process has, where the system tells."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        # pathlib would be one import more in a process that is started for a file
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
            return int(stream.read().split()[0]) * resource.getpagesize()
    return 0


def _allow(seconds: float, memory: int) -> None:
    """Let this process take so much more processor time, and memory in all."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for kind, limit in ((resource.RLIMIT_CPU, most), (resource.RLIMIT_AS, memory)):
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))


def serve(path: str, source: BinaryIO, target: BinaryIO) -> None:
    """Answer requests until the input ends."""
    sys.path[:] = json.loads(source.readline())["sys_path"]
    spec = importlib.util.spec_from_file_location("answering", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["answering"] = module
    spec.loader.exec_module(module)
    module.load()
    base = _used()
    while line := source.readline():
        header = json.loads(line)
        parts = [source.read(size) for size in header["sizes"]]
        _allow(header["seconds"], base + header["memory"])
        made: list[bytes] = []
        try:
            made = module.CALLS[header["call"]](header["told"], *parts)
            answer: dict[str, Any] = {"sizes": [len(part) for part in made]}
        except MemoryError:
            answer = {"memory": True}
        except Exception as error:
            answer = {"error": str(error)[:2000]}
        target.write(json.dumps(answer).encode() + b"\n")
        for part in made:
            target.write(part)
        target.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
