"""A progress bar, on a terminal and where tqdm is installed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from mlferry.text import printable

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar on the standard error stream while it is a terminal."""
    if not sys.stderr.isatty():
        return iter(items)
    try:
        tqdm: Any = importlib.import_module("tqdm").tqdm
    except ImportError:
        return iter(items)
    return iter(tqdm(items, desc=printable(what), total=total, leave=False))
