"""Families of operations, each a folder whose modules register their functions.

A family is imported only when needed, so that predicting loads no ONNX functions and converting
loads no kernels.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import threading
from collections.abc import Iterator
from typing import TypeVar

from mlferry.registry import Entry, Registry

T = TypeVar("T")

LAYERS = "mlferry.layers"
PROGRAMS = "mlferry.programs"

_LOADED: set[tuple[str, str]] = set()
_LOADING = threading.RLock()


def families(package: str) -> list[str]:
    """The names of the folders of a package that define operations."""
    return [
        module.name
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
        if module.ispkg and importlib.util.find_spec(f"{package}.{module.name}.definition")
    ]


def load(package: str, concern: str) -> None:
    """Import the module of this name in every family that has one: "definition", "kernel"..."""
    if (package, concern) in _LOADED:
        return
    with _LOADING:
        for family in families(package):
            name = f"{package}.{family}.{concern}"
            if importlib.util.find_spec(name):
                importlib.import_module(name)
        _LOADED.add((package, concern))


class RoomRegistry(Registry[T]):
    """A registry that the families of a package fill on first use.

    Args:
        what: what is registered, for messages.
        package: the package of the families: `LAYERS` or `PROGRAMS`.
        concerns: the names of the modules that register it.
    """

    def __init__(self, what: str, package: str, *concerns: str) -> None:
        super().__init__(what)
        self._package, self._concerns = package, concerns

    def _load(self) -> None:
        for concern in self._concerns:
            load(self._package, concern)

    def registered(self, name: str, version: int | None = None) -> Entry[T] | None:
        """As `find`, but only in what is registered so far, for modules that register more."""
        return super().find(name, version)

    def find(self, name: str, version: int | None = None) -> Entry[T] | None:
        """See `Registry.find`."""
        self._load()
        return super().find(name, version)

    def __contains__(self, name: object) -> bool:
        self._load()
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        self._load()
        return super().__iter__()

    def __len__(self) -> int:
        self._load()
        return super().__len__()

    def suggest(self, name: str) -> list[str]:
        """See `Registry.suggest`."""
        self._load()
        return super().suggest(name)
