"""Frontends of other packages, found by the entry point group `mlferry.frontends`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any, Protocol

from mlferry.converters.graph import Graph
from mlferry.converters.lower import Frontend

logger = logging.getLogger(__name__)

GROUP = "mlferry.frontends"


class Reader(Protocol):
    """What an entry point names: a module or an object with these two functions."""

    def claims(self, source: Any) -> bool:
        """Whether it can read a source; told by the content, without raising."""
        ...

    def read(self, source: Any, functions: Collection[str]) -> tuple[Graph, Frontend]:
        """The graph of a source, and the converters of its ops.

        Args:
            source: what the user gave to `mlferry.convert`.
            functions: the names for which the user has custom conversion functions.
        """
        ...


def readers() -> Iterator[tuple[str, Reader]]:
    """The installed readers with their names; those that cannot be imported are logged."""
    from importlib import metadata  # takes a while, and few need it

    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            yield entry.name, entry.load()
        except Exception as error:  # any package may be broken; the others still work
            logger.warning("the frontend %r cannot be imported: %r", entry.name, error)
