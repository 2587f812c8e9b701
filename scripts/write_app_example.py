"""Write the Swift package of examples/digit_reader_app: the model, its wrapper and its tests.

    python scripts/write_app_example.py [FOLDER]

`mlferry scaffold --app` makes them of the digit reader; the class of the custom layer, which the
scaffold leaves to its author, stays as it is.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np

import mlferry
from mlferry import examples
from mlferry.models.scaffold import app

PACKAGE = Path(__file__).resolve().parent.parent / "examples" / "digit_reader_app" / "DigitReader"
WRITTEN_BY_HAND = ("GridSampler.swift", "README.md")


def write(folder: Path) -> list[Path]:
    """Write every file of the package but the custom layer's class; their paths."""
    hooks = runpy.run_path(str(examples.path("hooks.py")))
    layers = runpy.run_path(str(examples.path("grid_sampler.py")))
    model = mlferry.convert(
        examples.path("digits_stn.h5"),
        custom_conversion_functions=hooks["custom_conversion_functions"],
    )
    runnable = mlferry.MLModel(
        model.get_spec(), custom_layers={"GridSampler": layers["GridSampler"]}
    )
    sample = {"image": np.load(examples.path("digit.npy"))}
    written = []
    for name, content in app.app_files(runnable, "DigitReader", sample).items():
        path = folder / name
        if path.name in WRITTEN_BY_HAND:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        path.write_bytes(data)
        written.append(path)
    return written


def main() -> None:
    """Write the package."""
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)


if __name__ == "__main__":
    main()
