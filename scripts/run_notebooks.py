"""Run the notebooks of examples/, each in its folder; write their outputs into them.

    python scripts/run_notebooks.py [--check] [NOTEBOOK ...]

With ``--check`` nothing is written: an error in a cell is the only way to fail.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(path: Path, *, write: bool) -> None:
    """Run one notebook in a copy of the examples, so that it leaves nothing behind."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(EXAMPLES, Path(folder) / "examples")
        place = Path(folder) / "examples" / path.parent.name
        client = NotebookClient(
            notebook, timeout=600, kernel_name="python3", record_timing=False,
            resources={"metadata": {"path": str(place)}},
        )  # fmt: skip
        client.execute()
    if write:
        nbformat.write(notebook, path)


def main() -> None:
    """Run those given, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"  # a notebook that is kept has no use for bars
    for path in arguments.notebooks or sorted(EXAMPLES.glob("*/*.ipynb")):
        run(path.resolve(), write=not arguments.check)


if __name__ == "__main__":
    main()
