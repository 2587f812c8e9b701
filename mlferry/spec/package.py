"""`.mlpackage`: a folder with a manifest, a model, and the weights of its programs.

NAME.mlpackage/Manifest.json
NAME.mlpackage/Data/com.apple.CoreML/model.mlmodel
NAME.mlpackage/Data/com.apple.CoreML/weights/weight.bin
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from mlferry import limits
from mlferry.errors import ModelFileError

MANIFEST = "Manifest.json"
DATA = "Data"
WEIGHTS = "weights"
# How messages spell the folder in which a model lies.
MODEL_PATH = "@model_path"


def is_package(path: Path) -> bool:
    """Whether a path is that of a package."""
    return path.is_dir() and (path / MANIFEST).exists()


def model_file(package: Path) -> Path:
    """The file of the model in a package, as its manifest tells.

    Raises:
        ModelFileError: the manifest is damaged, or names what is not in the package.
    """
    manifest = _manifest(package / MANIFEST)
    entries = manifest.get("itemInfoEntries")
    root = manifest.get("rootModelIdentifier")
    if not isinstance(entries, dict) or root not in entries:
        raise ModelFileError(f"{package / MANIFEST} does not name the model of the package")
    entry = entries[root]
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not path:
        raise ModelFileError(f"{package / MANIFEST}: the entry of the model has no path")
    return _inside(package, path)


def _manifest(path: Path) -> dict[str, Any]:
    limits.check_plain(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} is not a JSON object")
    return found


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _inside(package: Path, relative: str) -> Path:
    """A file of a package.

    Raises:
        ModelFileError: the path leads out of the package, through a link, or to no regular file.
    """
    parts = PurePosixPath(relative).parts
    if relative.startswith("/") or "\\" in relative or ".." in parts or ":" in relative:
        raise ModelFileError(
            f"{package / MANIFEST}: the path {relative!r} leads out of the package"
        )
    path = package / DATA
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ModelFileError(f"{path} is a link; a package has none")
    if not path.is_file():
        raise ModelFileError(
            f"{package / MANIFEST} names {relative!r}, which is not in the package"
        )
    return path
