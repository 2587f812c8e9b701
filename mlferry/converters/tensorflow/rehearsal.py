"""Reading a model of TensorFlow once in a process of its own, which it may crash.

TensorFlow dies on some hostile graphs. A file that the other process read without dying is read
again in this one; what it says there does not matter.
"""

from __future__ import annotations

import base64
import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BYTES_A_SECOND = 100_000  # of a message: what adds to the processor time
_TIMES = 10  # the seconds of other readers: TensorFlow is slow to start
_COPIES = 8  # of a message, that TensorFlow makes


def rehearse(path: Path, message: Path, arguments: dict[str, Any]) -> None:
    """Read a file in another process.

    Args:
        path: the file, or the folder of a SavedModel.
        message: the file of its graph.
        arguments: of `mlferry.converters.tensorflow.read.read`.

    Raises:
        ModelFileError: TensorFlow crashed.
        LimitError: it took too much time or memory.
    """
    from mlferry import limits
    from mlferry.converters.isolated import Refused

    size = message.stat().st_size
    told = {"path": str(path.resolve()),
            "arguments": base64.b64encode(pickle.dumps(arguments)).decode()}  # fmt: skip
    seconds = _TIMES * limits.current().seconds + size / _BYTES_A_SECOND
    try:
        _worker().ask(str(path), "read", told, [], seconds, size * _COPIES)
    except Refused:
        return


def _worker() -> Any:
    from mlferry.converters.isolated import Worker

    if not _STARTED:
        _STARTED.append(Worker(__file__, "TensorFlow"))
    return _STARTED[0]


_STARTED: list[Any] = []


# ---- in the other process ----------------------------------------------------------------------


def load() -> None:
    """Load what takes time and memory of its own."""
    import tensorflow  # noqa: F401 - loaded before memory is limited

    import mlferry.converters.tensorflow.read  # noqa: F401 - likewise


def _read(told: dict[str, Any]) -> list[bytes]:
    from mlferry import limits
    from mlferry.converters.tensorflow import read
    from mlferry.errors import MlferryError

    arguments = pickle.loads(base64.b64decode(told["arguments"]))  # written by our own process
    # what is refused here is refused there; this process goes on
    with limits.changed(isolated=False), contextlib.suppress(MlferryError):
        read.read(told["path"], **arguments)
    return []


CALLS: dict[str, Callable[..., list[bytes]]] = {"read": _read}
