"""Runs libraries that may crash on a hostile file in a process of their own.

The process is started once, answers one request after another, and ends with this one, however this
one ends. If it crashes, hangs, or takes too much time or memory, it is replaced, and the request
raises an error of ours.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from mlferry import limits
from mlferry.converters import watching, worker
from mlferry.errors import LimitError, ModelFileError

PATIENCE = 10  # how many times the processor time may pass on a busy machine
_IDLE = 20  # how many times the limit `seconds` may pass without any use of the processor
_TO_START = 300.0  # seconds in which a library must load
_ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_SIGKILL, _SIGXCPU = 9, 24


class Refused(Exception):
    """The worker could not do what was asked; the message says why."""


def command(name: str, *script: str) -> list[str]:
    """The command that starts a worker: a script and its arguments.

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
    """Environment variables for a worker: one thread takes less memory."""
    return {**os.environ, **_ONE_THREAD}


def search_path() -> list[str]:
    """The path on which a worker finds its libraries."""
    return [str(entry) for entry in sys.path]


class Worker:
    """A process that runs the functions in `CALLS` of a module.

    Args:
        script: the path of the module.
        library: what the worker runs, for messages.
    """

    def __init__(self, script: str, library: str) -> None:
        self.script, self.library = script, library
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # An open pipe: when it closes, the worker knows that this process has ended.
        self._line = -1
        self._first = self._taken = 0  # bytes that it took after starting, and after an answer
        # Those of the parent of a fork, kept as they are.
        self._left: list[subprocess.Popen[bytes]] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Leave the process to the parent, one of whose threads may have held the lock."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        if process is not None:
            self._left.append(process)
            process.returncode = 0  # it is not a child of this process
            _abandon(process, self._line)

    def ask(
        self,
        name: str,
        call: str,
        request: Mapping[str, Any] | Sequence[str] | None,
        parts: Sequence[bytes | memoryview],
        seconds: float,
        memory: int = 0,
    ) -> list[bytes]:
        """The answer of a function of the script.

        Args:
            name: what messages call the file.
            request: sent as JSON.
            parts: sent as bytes.
            seconds: the processor time that it may take.
            memory: bytes beyond the limit `reader_memory` that it may take.

        Raises:
            Refused: the function raised.
            ModelFileError: the library crashed.
            LimitError: the call took too much time or memory.
        """
        allowed = limits.current().reader_memory + memory
        header = {
            "call": call,
            "request": request,
            "sizes": [len(part) for part in parts],
            "seconds": seconds,
            "memory": allowed,
        }
        idle = _IDLE * limits.current().seconds
        with self._lock:
            process = self._started(name)
            watch = watching.Watch(process, seconds * PATIENCE, idle, allowed + self._taken)
            try:
                with watch:
                    answer, result = _exchange(process, header, parts)
            except (OSError, ValueError):
                answer, result = {}, []
            except BaseException:
                self._stop()
                raise
            code = 0 if "sizes" in answer else answer.get("died")
            if code is None:
                code = self._stop()
            elif self._has_grown(process):
                self._stop()  # its memory may be needed to convert the model
        if "sizes" in answer:
            return result
        if "error" in answer:
            raise Refused(answer["error"])
        reason: watching.Reason = "memory" if "memory" in answer else watch.reason
        raise _unanswered(name, self.library, reason, code, seconds, idle, allowed)

    def _started(self, name: str) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._stop()  # it died between two requests
        return self._process or self._start(name)

    def _has_grown(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether requests left more memory in use than one may take."""
        self._taken = watching.resident(process.pid)
        return self._taken - self._first > limits.current().reader_memory

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        line, self._line = os.pipe()
        values = [line] if os.name == "posix" else []
        try:
            self._process = process = subprocess.Popen(
                command(name, worker.__file__, self.script, *map(str, values)),
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=values,
            )
        except BaseException:
            os.close(self._line)
            raise
        finally:
            os.close(line)
        atexit.register(self._end)
        watch = watching.Watch(process, _TO_START, _TO_START, sys.maxsize)
        first = {"sys_path": search_path()}
        try:
            with watch:
                ready, _ = _exchange(process, first, [])
        except (OSError, ValueError):
            ready = {}
        except BaseException:
            self._stop()
            raise
        if "ready" not in ready:
            raise ModelFileError(
                f"{name} cannot be read: the process that reads it could not load {self.library} "
                f"(exit {self._stop()}). If you trust the file: with "
                "mlferry.limits.changed(isolated=False): ..."
            )
        self._first = self._taken = watching.resident(process.pid)
        return process

    def _end(self) -> None:
        """Runs at the end of this process, while another thread may be waiting for an answer."""
        if self._process is not None:
            watching.kill(self._process)
            self._process.wait()

    def _stop(self) -> int:
        process, self._process = self._process, None
        atexit.unregister(self._end)
        if process is None:
            return 0
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr] # a pipe, by `_start`
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            watching.kill(process)
            process.wait()
            return 0
        finally:
            os.close(self._line)


def _abandon(process: subprocess.Popen[bytes], line: int) -> None:
    """Close the pipes to a process without writing pending data."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (process.stdin, process.stdout):
        os.dup2(nothing, stream.fileno())  # type: ignore[union-attr] # a pipe, by `Worker._start`
    os.close(nothing)
    os.close(line)


def _exchange(
    process: subprocess.Popen[bytes], header: dict[str, Any], parts: Sequence[bytes | memoryview]
) -> tuple[dict[str, Any], list[bytes]]:
    source, target = process.stdout, process.stdin
    assert source is not None
    assert target is not None
    target.write(json.dumps(header).encode() + b"\n")
    for part in parts:
        target.write(part)
    target.flush()
    answer = json.loads(source.readline())
    if not isinstance(answer, dict):
        raise ValueError("the worker sent an invalid answer")
    results = [source.read(size) for size in answer.get("sizes", ())]
    if [len(part) for part in results] != answer.get("sizes", []):
        raise ValueError("the worker died while it answered")
    return answer, results


def _unanswered(
    name: str,
    library: str,
    reason: watching.Reason,
    code: int,
    seconds: float,
    idle: float,
    memory: int,
) -> Exception:
    """The error for a worker that ended without an answer."""
    if reason == "memory":
        return over_memory(name, library, memory)
    if reason == "idle":
        return _over_time(
            f"{library} has made no progress for {idle:.0f} seconds while reading {name}"
        )
    if reason == "seconds" or -code == _SIGXCPU:
        return _over_time(
            f"{library} takes more than {seconds:.0f} seconds of processor time to find its way "
            f"in {name}"
        )
    if -code == _SIGKILL:
        return ModelFileError(
            f"{name} cannot be read: something killed the process that reads it with {library}. "
            "The machine may have run out of memory"
        )
    return ModelFileError(f"{name} is damaged: {library} crashed on it (exit {code})")


def _over_time(subject: str) -> LimitError:
    """The error for a worker that does not end."""
    return limits.over("seconds", subject, int(10 * max(limits.current().seconds, 60)))


def over_memory(name: str, library: str, memory: int = 0) -> LimitError:
    """The error for a worker that takes too much memory.

    Args:
        name: what messages call the file.
        library: what reads it.
        memory: bytes that it could take; by default the limit itself.
    """
    most = limits.current().reader_memory
    return limits.over(
        "reader_memory",
        f"{library} takes more than {memory or most:,} bytes of memory to find its way in {name}",
        8 * most,
    )
