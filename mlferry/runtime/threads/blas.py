"""Limit NumPy's products to one BLAS thread while a model runs.

Threads of OpenBLAS spin while they wait for each other. Over hundreds of small products they lose
more than they gain, and a prediction takes many times as long if another process uses the cores.
The number of threads belongs to the whole process: it is set when the first of several predictions
begins, and restored when the last one ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

# How libraries name what reads and what sets the number of their threads.
_NAMES = [
    *(
        (f"{start}_get_num_threads{end}", f"{start}_set_num_threads{end}")
        for start in ("scipy_openblas", "openblas")
        for end in ("64_", "")
    ),
    ("bli_thread_get_num_threads", "bli_thread_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
]


class Control(NamedTuple):
    """Of one library: its number of threads.

    Attributes:
        get: how many it uses.
        set: lets it use so many.
    """

    get: Callable[[], int]
    set: Callable[[int], object]


@functools.lru_cache(maxsize=1)
def control() -> Control | None:
    """That of the library that NumPy multiplies with; None if its threads cannot be set.

    This is so for Accelerate on macOS, which shares the cores by itself.
    """
    for path in _libraries():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for get, set_ in _NAMES:
            # names are also looked up in the library's own dependencies
            if hasattr(library, get) and hasattr(library, set_):
                return Control(getattr(library, get), getattr(library, set_))
    return None


def _libraries() -> Iterator[str]:
    """NumPy's own extension, and what its wheel brings along."""
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        with contextlib.suppress(ImportError):
            yield str(importlib.import_module(name).__file__)
            break
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".libs", package / ".dylibs"):
        if folder.is_dir():
            yield from (str(path) for path in sorted(folder.iterdir()))


class _Holders(AbstractContextManager[None]):
    """The predictions that currently want one thread.

    Attributes:
        count: how many they are.
        before: the number of threads to restore when none is left.
    """

    def __init__(self) -> None:
        self.count, self.before = 0, 1
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            threads = control()
            if self.count == 0 and threads is not None:
                self.before = threads.get()
                if self.before > 1:
                    threads.set(1)
            self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.lock:
            threads = control()
            self.count -= 1
            if self.count == 0 and self.before > 1 and threads is not None:
                threads.set(self.before)

    def unlock(self) -> None:
        """In a process that was forked while another thread held the lock."""
        self.lock = threading.Lock()


_holders = _Holders()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_holders.unlock)


def one_thread() -> AbstractContextManager[None]:
    """Inside, products use one BLAS thread, in all threads of this process."""
    return _holders
