"""Public names that are imported on first use (PEP 562).

This keeps `import mlferry` quick, and predicting loads no converter.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, str] = MappingProxyType({})


def names(
    package: str, homes: Mapping[str, str] = _NONE
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its public names on first use.

    Args:
        package: the package's `__name__`. Its own modules are found without being listed.
        homes: where the other public names are: "module:name", or "module" for a module itself.
    """

    def find(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            home = f"{package}.{name}"
            if name.startswith("__") or importlib.util.find_spec(home) is None:
                raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        module, _, attribute = home.partition(":")
        value: Any = importlib.import_module(module)
        if attribute:
            value = getattr(value, attribute)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, listed
