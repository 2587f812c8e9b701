"""Libraries that may crash on a hostile file, in a process of their own.

The process is started once, answers one request after another, and ends with this one. One that
crashes, takes too long or too much memory is replaced; the request ends in an error of ours.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from mlferry import limits
from mlferry.converters import worker
from mlferry.errors import LimitError, ModelFileError

PATIENCE = 10  # times the processor time that a busy machine may make it last
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_TIME_SIGNALS = (9, 24)  # SIGKILL by the hard limit, SIGXCPU


class Refused(Exception):
    """The worker could not do what it was asked; the message says why."""


def command(name: str, *script: str) -> list[str]:
    """What starts a worker: a script and its arguments.

    Raises:
        ModelFileError: there is no interpreter to start.
    """
    if not sys.executable:
        raise ModelFileError(
            f"{name} cannot be read: there is no Python interpreter for the process that reads "
            "it. If you trust the file: with mlferry.limits.changed(isolated=False): ..."
        )
    return [sys.executable, "-I", "-S", "-X", "utf8", *script]


def environment() -> dict[str, str]:
    """Variables for a worker: one thread, which takes less memory."""
    return {**os.environ, **_ONE_THREAD}


def search_path() -> list[str]:
    """Where a worker finds its libraries."""
    return [str(entry) for entry in sys.path]


class Worker:
    """A process that answers with the functions in `CALLS` of a module.

    Args:
        script: the path of the module.
        library: what it runs, for messages.
    """

    def __init__(self, script: str, library: str) -> None:
        self.script, self.library = script, library
        self._renew()
        if hasattr(os, "register_at_fork"):  # another thread may hold the lock just then
            os.register_at_fork(after_in_child=self._renew)
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def ask(
        self,
        name: str,
        call: str,
        told: Any,
        parts: Sequence[bytes],
        seconds: float,
        memory: int = 0,
    ) -> list[bytes]:
        """What a function of the script answers.

        Args:
            name: what messages call the file.
            call: the function.
            told: goes to it as JSON.
            parts: goes to it as bytes.
            seconds: of processor time that it may take.
            memory: bytes that it may take beyond the limit `reader_memory`.

        Raises:
            Refused: the function raised.
            ModelFileError: the library crashed.
            LimitError: it took too much time or memory.
        """
        header = {"call": call, "told": told, "sizes": [len(part) for part in parts],
                  "seconds": seconds,
                  "memory": limits.current().reader_memory + memory}  # fmt: skip
        with self._lock:
            process = self._started(name)
            timer = threading.Timer(seconds * PATIENCE, _kill, [process])
            timer.daemon = True  # an interrupt may come before it can be cancelled
            try:
                timer.start()
                answer, found = _exchange(process, header, parts)
            except (OSError, ValueError):
                answer, found = {}, []
            except BaseException:
                self._stop()
                raise
            finally:
                timer.cancel()
            if "sizes" not in answer:
                code = answer["died"] if "died" in answer else self._stop()
        if "sizes" in answer:
            return found
        if "error" in answer:
            raise Refused(answer["error"])
        if "memory" in answer:
            raise over_memory(name, self.library)
        raise _crashed(name, self.library, code, seconds)

    def _started(self, name: str) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._stop()  # it died between two requests
        process = self._process
        if process is None or self._owner != os.getpid():
            process = self._process = subprocess.Popen(
                command(name, worker.__file__, self.script), env=environment(),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            self._owner = os.getpid()
            first = {"sys_path": search_path()}
            assert process.stdin is not None
            process.stdin.write(json.dumps(first).encode() + b"\n")
            atexit.register(self._stop)
        return process

    def _stop(self) -> int:
        process, self._process = self._process, None
        atexit.unregister(self._stop)
        if process is None or self._owner != os.getpid():
            return 0
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr] # a pipe, by `_started`
        with contextlib.suppress(OSError):
            process.stdout.close()  # type: ignore[union-attr] # a pipe, by `_started`
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a worker, and the process that answers for it, if there is one."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _exchange(
    process: subprocess.Popen[bytes], header: dict[str, Any], parts: Sequence[bytes]
) -> tuple[dict[str, Any], list[bytes]]:
    source, target = process.stdout, process.stdin
    assert source is not None
    assert target is not None
    target.write(json.dumps(header).encode() + b"\n")
    for part in parts:
        target.write(part)
    target.flush()
    answer: dict[str, Any] = json.loads(source.readline())
    found = [source.read(size) for size in answer.get("sizes", ())]
    if [len(part) for part in found] != answer.get("sizes", []):
        raise ValueError("the worker died while it answered")
    return answer, found


def _crashed(name: str, library: str, code: int, seconds: float) -> Exception:
    """The error for a worker that ended without an answer."""
    if -code in _TIME_SIGNALS:
        return _over_time(name, library, seconds)
    return ModelFileError(f"{name} is damaged: {library} crashed on it (exit {code})")


def _over_time(name: str, library: str, seconds: float) -> LimitError:
    """The error for a worker that does not end."""
    return limits.over(
        "seconds",
        f"{name} is damaged, or larger than most: {library} takes more than {seconds:.0f} seconds "
        "of processor time to find its way in it",
        int(10 * max(seconds, 60)),
    )


def over_memory(name: str, library: str) -> LimitError:
    """The error for a worker that takes too much memory."""
    most = limits.current().reader_memory
    return limits.over(
        "reader_memory",
        f"{name} is damaged, or larger than most: {library} takes more than {most:,} bytes of "
        "memory to find its way in it",
        8 * most,
    )
