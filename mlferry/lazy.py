"""Public names that are imported on first use (PEP 562).

This keeps `import mlferry` quick, and predicting loads no converter.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})


def names(
    package: str, modules: Mapping[str, Sequence[str]] = _NONE
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its public names on first use.

    Args:
        package: the package's `__name__`. Its own modules are found without being listed.
        modules: the names that each module has of the others; "name as other" under another name.
    """
    homes: dict[str, tuple[str, str]] = {}
    for module, entries in modules.items():
        for entry in entries:
            attribute, _, other = entry.partition(" as ")
            homes[other or attribute] = module, attribute

    def find(name: str) -> Any:
        if name in homes:
            module, attribute = homes[name]
            value: Any = getattr(importlib.import_module(module), attribute)
        else:
            module = f"{package}.{name}"
            if name.startswith("__") or importlib.util.find_spec(module) is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
            value = importlib.import_module(module)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        own = vars(sys.modules[package])
        return sorted({*own, *homes, *own.get("__all__", ())})

    return find, listed
