"""The `mlferry` command. `main` runs it; the commands are click's, one file a family."""

from __future__ import annotations

import sys
from collections.abc import Sequence

NEEDS = (
    "the mlferry command needs click and rich, which come with an extra of their own:\n"
    "  pip install 'mlferry[shell]'"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        its exit code: 0, or 1 after an error, 2 for wrong usage, 130 when interrupted.
    """
    try:
        from mlferry.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"mlferry: {NEEDS}\n")
        return 1
    return run(sys.argv[1:] if argv is None else list(argv))
