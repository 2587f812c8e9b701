"""Apple's own checker of networks, built from the public source of coremltools, beside ours.

    git clone https://github.com/apple/coremltools
    cmake -S tests/fuzz/apple -B build-apple -DCOREMLTOOLS=coremltools && cmake --build build-apple
    pytest --apple-checker build-apple/apple_checker tests/layers
    python -m tests.fuzz.apple build-apple/apple_checker --mutants 50000

The first of the two runs checks what the tests write: no model may be accepted by us alone. The
second changes a model of each kind at random and compares the verdicts.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from pathlib import Path

from mlferry.spec.proto import model_pb2

_LENGTH = struct.Struct("<Q")
ACCEPTED = ""


class Checker:
    """A process that checks one model after the other; a context manager.

    Args:
        program: the checker that `CMakeLists.txt` in this folder builds.
    """

    def __init__(self, program: Path) -> None:
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    def verdict(self, spec: model_pb2.Model) -> str:
        """ACCEPTED, or why it is refused; "crashed" if the checker died of it."""
        if self._process is None:
            self._process = subprocess.Popen(
                [self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        data = spec.SerializeToString()
        try:
            self._process.stdin.write(_LENGTH.pack(len(data)) + data)
            self._process.stdin.flush()
            head = self._process.stdout.read(_LENGTH.size)
            message = self._process.stdout.read(_LENGTH.unpack(head)[0])
        except (BrokenPipeError, struct.error):
            self._stop()
            return "crashed"
        return message.decode("utf-8", "replace")

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(BrokenPipeError):  # what it did not read any more
                process.communicate()

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
