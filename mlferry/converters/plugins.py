"""Frontends of other packages, found by the entry point group `mlferry.frontends`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlferry.converters.frontend import Frontend
from mlferry.converters.graph import Graph
from mlferry.text import logger_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logger_of(__name__)

GROUP = "mlferry.frontends"


class Reader(Protocol):
    """The target of an entry point: a module or an object with these two functions."""

    def claims(self, source: object) -> bool:
        """Whether it can read a source; decided by the content, without raising."""
        ...

    def read(self, source: object, functions: Collection[str]) -> tuple[Graph, Frontend]:
        """The graph of a source, and the converters of its ops.

        Args:
            source: what the user gave to `mlferry.convert`.
            functions: the names for which the user has custom conversion functions.
        """
        ...


def readers() -> Iterator[tuple[str, Reader]]:
    """The installed readers with their names; those that cannot be imported are logged."""
    for entry in _entries(*((path, _changed(path)) for path in map(str, sys.path))):
        try:
            yield entry.name, entry.load()
        except Exception as error:  # a broken package must not disable the others
            logger.warning("the frontend %r cannot be imported: %r", entry.name, error)


def _changed(path: str) -> int:
    """When something was last installed into a folder; 0 if that is unknown."""
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=1)
def _entries(*places: tuple[str, int]) -> tuple[EntryPoint, ...]:
    """The entry points in these folders; reads a file of every installed package."""
    from importlib import metadata  # takes a while, and few need it

    return tuple(sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name))
