"""The families of layers: a folder each, whose modules register what they have.

Nothing of a family is imported before something asks for it, so that predicting loads no ONNX
functions and converting loads no kernels.
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

_PACKAGE = __name__.rpartition(".")[0]
_LOADED: set[str] = set()
_LOADING = threading.RLock()


def families() -> list[str]:
    """The names of the folders that define layer kinds."""
    package = importlib.import_module(_PACKAGE)
    return [
        found.name
        for found in pkgutil.iter_modules(package.__path__)
        if found.ispkg and importlib.util.find_spec(f"{_PACKAGE}.{found.name}.definition")
    ]


def load(concern: str) -> None:
    """Import the module of that name of every family that has one: "definition", "kernel"..."""
    if concern in _LOADED:
        return
    with _LOADING:
        for family in families():
            name = f"{_PACKAGE}.{family}.{concern}"
            if importlib.util.find_spec(name):
                importlib.import_module(name)
        _LOADED.add(concern)


class RoomRegistry(Registry[T]):
    """A registry that the families fill when it is first asked.

    Args:
        what: what is registered, for messages.
        concern: the name of the modules that register it.
    """

    def __init__(self, what: str, concern: str) -> None:
        super().__init__(what)
        self._concern = concern

    def find(self, name: str, version: int | None = None) -> Entry[T] | None:
        """See `Registry.find`."""
        load(self._concern)
        return super().find(name, version)

    def __contains__(self, name: object) -> bool:
        load(self._concern)
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        load(self._concern)
        return super().__iter__()

    def __len__(self) -> int:
        load(self._concern)
        return super().__len__()

    def suggest(self, name: str) -> list[str]:
        """See `Registry.suggest`."""
        load(self._concern)
        return super().suggest(name)
