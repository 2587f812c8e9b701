"""The files that README and guides work with, inside of the installed package.

`digits_stn.h5` is a digit reader with a spatial transformer, of Keras; `digits_stn.npz` has 300
test pictures `x` [300, 40, 40, 1] (0 to 255), labels `y`, and Keras's `predictions` for `x / 255`.
`digits.onnx` is one of PyTorch for pictures of 8 x 8 pixels; `digits.npz` has 300 of them in `x`
[300, 8, 8] (0 to 16), labels `y`, and PyTorch's `logits`. `digit.npy` is one sample of the first,
`digit.png` and `photos/` are pictures for the second. `style.onnx` takes even sizes only.
`hooks.py`, `grid_sampler.py` and `labels.txt` go with them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mlferry.errors import ModelFileError
from mlferry.text import printable

FOLDER = Path(__file__).parent / "files"


def names() -> list[str]:
    """The names of the files, those in folders as ``photos/00.png``."""
    return sorted(
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )


def path(name: str) -> Path:
    """Where a file of the examples is, or a folder of them: ``path("digits_stn.h5")``.

    Raises:
        ModelFileError: there is none of that name.
    """
    file = FOLDER / name
    if name not in {*names(), *(Path(each).parent.as_posix() for each in names())} - {"."}:
        raise ModelFileError(
            f"there is no example {printable(name)!r}; there are {', '.join(names())}"
        )
    return file


def copy(folder: str | os.PathLike[str]) -> Path:
    """Write all files into a folder, which is made if it is not there.

    Files that are there already stay if they are the same.

    Returns:
        the folder.

    Raises:
        ModelFileError: a file of that name with other contents is there, before anything is
            written; or the folder cannot be written.
    """
    target = Path(folder)
    try:
        new = []
        for name in names():
            place = target / name
            if not place.exists():
                new.append(name)
            elif not place.is_file() or place.read_bytes() != (FOLDER / name).read_bytes():
                raise ModelFileError(
                    f"{place} is another file than that of the examples: give another folder, "
                    "e.g. mlferry examples digits"
                )
        for name in new:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _copy_whole(FOLDER / name, target / name)
    except OSError as error:
        raise ModelFileError(f"cannot write the examples into {target}: {error}") from error
    return target


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file, which gets its name when it is whole: half of one would be another file."""
    part = target.with_name(f".{target.name}.part")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
