"""A progress bar on terminals and in notebooks, if tqdm is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from mlferry.text import printable

T = TypeVar("T")


def progress(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """The items, with a progress bar on a terminal or in a notebook, but not in a pipe."""
    notebook = in_notebook()
    if not notebook and not sys.stderr.isatty():
        return iter(items)
    try:
        tqdm: Any = importlib.import_module(_bars(notebook)).tqdm
    except ImportError:
        return iter(items)
    return iter(tqdm(items, desc=printable(title), total=total, leave=False))


_LARGE = 256 << 20  # bytes


def progress_of(items: Iterable[T], title: str, size: int) -> Iterator[T]:
    """As `progress`, if all items together have so many bytes that it takes seconds."""
    return progress(items, title) if size >= _LARGE else iter(items)


def _bars(notebook: bool) -> str:
    """The module of tqdm. Without ipywidgets, the one for notebooks warns and raises."""
    widgets = notebook and importlib.util.find_spec("ipywidgets") is not None
    return "tqdm.notebook" if widgets else "tqdm"


def in_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")
