"""Write what the code blocks of README and guides print below them, where a page shows it.

    python scripts/write_outputs.py [PAGE ...]

A block that begins with ```text title="prints" is the output of the block before it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mlferry  # noqa: E402 - behind the path of the project
from tests import doc_blocks  # noqa: E402 - likewise


def main() -> None:
    """Write those given, or all that show outputs."""
    given = [Path(argument).resolve() for argument in sys.argv[1:]]
    for page in given or [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if not list(doc_blocks.outputs(text)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            if page.name != "README.md":
                mlferry.examples.copy(folder)
            made = doc_blocks.run(text, Path(folder))
        page.write_text(doc_blocks.with_outputs(text, made), encoding="utf-8")


if __name__ == "__main__":
    main()
