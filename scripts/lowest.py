"""Constraints for pip: the lowest version of every dependency that mlferry says to support."""

from __future__ import annotations

import re
import sys
from importlib.metadata import requires

_TOOLS = ("tensorflow", "netron")  # extras that are not of the package itself


def lowest() -> list[str]:
    """``name==version.*``, one for each dependency with a lowest version."""
    found: dict[str, str] = {}
    for requirement in requires("mlferry") or ():
        if any(f"extra == '{extra}'" in requirement.replace('"', "'") for extra in _TOOLS):
            continue
        match = re.match(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)", requirement)
        if match is not None:
            version = match[2] if "." in match[2] else f"{match[2]}.0"
            found.setdefault(match[1], f"{match[1]}=={version}.*")
    return sorted(found.values())


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest()) + "\n")
