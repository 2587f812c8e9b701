"""Processes that read files of strangers: they end, whatever they do."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlferry import limits
from mlferry.converters import watching
from mlferry.converters.isolated import Worker
from mlferry.errors import LimitError, MlferryError, ModelFileError

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
APART = "EACH_APART = True\n"

STATEMENTS: dict[str, tuple[str, type[MlferryError], str]] = {
    "sleeps": ("time.sleep(600)", LimitError, r"seconds.*f\.x.*changed\(seconds="),
    "stops itself": (
        "os.kill(os.getpid(), signal.SIGSTOP)", LimitError, r"seconds.*f\.x.*changed\(seconds=",
    ),
    "stops its threads, which wait for each other": (
        "l = threading.Lock(); l.acquire(); l.acquire()", LimitError, r"changed\(seconds=",
    ),
    "computes without end": ("while True: pass", LimitError, r"processor time.*changed\(seconds="),
    "fills the memory": (
        "x = []\n    while True: x.append(bytearray(b'1') * (1 << 20))", LimitError,
        r"the library takes more than 67,108,864 bytes of memory.*f\.x.*changed\(reader_memory=",
    ),
    "asks for more than there is": (
        "bytearray(1 << 45)", LimitError, r"memory.*changed\(reader_memory=",
    ),
    "is killed": ("os.kill(os.getpid(), signal.SIGKILL)", ModelFileError, "killed the process"),
    "crashes": ("os.abort()", ModelFileError, r"f\.x is damaged: the library crashed on it"),
    "answers by a number": ("os.write(1, b'7\\n'); os._exit(0)", ModelFileError, "crashed on it"),
}  # fmt: skip


def script(folder: Path, statement: str, more: str = "") -> str:
    path = folder / "answers.py"
    path.write_text(
        f"import os, signal, sys, threading, time\n{more}def load(): pass\n"
        f"def answer(told):\n    {statement}\n    return []\n"
        'CALLS = {"answer": answer}\n', encoding="utf-8",
    )  # fmt: skip
    return str(path)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The processes that were started, none of which may be left."""
    matches: list[int] = []
    popen = subprocess.Popen

    def noting(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        result = popen(*arguments, **options)  # type: ignore[call-overload] - passed on
        matches.append(result.pid)
        return result  # type: ignore[no-any-return]

    monkeypatch.setattr(subprocess, "Popen", noting)
    yield matches
    assert matches
    assert wait(lambda: not any(map(group_exists, matches)))


def group_exists(group: int) -> bool:
    """Whether a process of a group lives; dead ones wait for the system's first process."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, leader, *_ = path.read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(leader) == group and state not in "ZX":
                return True
    return False


def ask(worker: Worker, seconds: float) -> list[bytes]:
    with limits.changed(reader_memory=64 << 20, seconds=seconds):
        return worker.ask("f.x", "answer", None, [], seconds)


@linux
@pytest.mark.parametrize("more", ["", APART], ids=["one process", "each apart"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_what_a_reading_process_may_do(
    name: str, more: str, tmp_path: Path, started: list[int]
) -> None:
    statement, error, message = STATEMENTS[name]
    worker = Worker(script(tmp_path, statement, more), "the library")
    begun = time.monotonic()
    with pytest.raises(error, match=message) as raised:
        ask(worker, 0.05 if "memory" not in message else 10)
    assert time.monotonic() - begun < 10
    assert "damaged" not in str(raised.value) or error is ModelFileError
    worker._stop()


@linux
def test_memory_that_is_only_reserved_is_not_counted(tmp_path: Path) -> None:
    """Threads and allocators reserve it by the gigabyte."""
    statement = "import mmap; m = [mmap.mmap(-1, 1 << 30) for _ in range(4)]"
    worker = Worker(script(tmp_path, statement), "the library")
    assert ask(worker, 10) == []
    worker._stop()


@linux
def test_what_earlier_files_left_is_not_counted(tmp_path: Path) -> None:
    """Each leaves 40 of 64 MB; a process that has grown too large is replaced."""
    statement = "LEFT.append(bytearray(b'1') * (40 << 20)); return [str(os.getpid()).encode()]"
    worker = Worker(script(tmp_path, statement, "LEFT = []\n"), "the library")
    processes = [ask(worker, 10) for _ in range(6)]
    assert len(set(map(str, processes))) == 3
    worker._stop()


@linux
def test_after_a_watch_that_failed_others_are_watched(
    tmp_path: Path, started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread watches all requests; an error has ended it."""
    errors: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    worker = Worker(script(tmp_path, "time.sleep(float(told[0])); return []"), "the library")
    with monkeypatch.context() as patched:
        patched.setattr(watching.Watch, "look", lambda _: 1 // 0)
        assert worker.ask("f.x", "answer", ["0.2"], [], 10) == []
    assert {error.exc_type for error in errors} == {ZeroDivisionError}
    with pytest.raises(LimitError):
        worker.ask("f.x", "answer", ["20"], [], 0.1)
    worker._stop()


def test_a_library_that_cannot_be_loaded(tmp_path: Path, started: list[int]) -> None:
    worker = Worker(script(tmp_path, "pass", "raise ImportError\n"), "the library")
    with pytest.raises(ModelFileError, match=r"could not load the library .*isolated=False"):
        ask(worker, 10)


CALLER = """
    import os, sys, threading
    from mlferry.converters.isolated import Worker
    worker = Worker(sys.argv[1], "the library")
    threading.Thread(target=worker.ask, args=("f.x", "answer", None, [], 60.0), daemon=True).start()
    while worker._process is None: pass
    while not os.path.exists(sys.argv[2]): pass
    print(worker._process.pid, flush=True)
    {end}
"""
ENDS: dict[str, str] = {
    "is killed": "sys.stdin.read()",
    "ends": "sys.exit()",
    "ends without a word": "os._exit(0)",
    "is killed, and has a child": "os.fork(); sys.stdin.read()",
}


@linux
@pytest.mark.parametrize("more", ["", APART], ids=["one process", "each apart"])
@pytest.mark.parametrize("statement", ["sleeps", "stops itself"])
@pytest.mark.parametrize("end", ENDS)
def test_a_reading_process_ends_with_its_caller(
    end: str, statement: str, more: str, tmp_path: Path
) -> None:
    path = script(tmp_path, f"open({str(tmp_path / 'begun')!r}, 'w'); {STATEMENTS[statement][0]}",
                  more)  # fmt: skip
    program = textwrap.dedent(CALLER).format(end=ENDS[end])
    command = [sys.executable, "-c", program, path, str(tmp_path / "begun")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        group = int(caller.stdout.readline())
        if end.startswith("is killed"):
            assert group_exists(group)
            caller.send_signal(signal.SIGKILL)
        assert wait(lambda: not group_exists(group))
        assert caller.stdin is not None
        caller.stdin.close()  # ends the child, if there is one


def wait(true: Callable[[], bool]) -> bool:
    """Whether something becomes true within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False
