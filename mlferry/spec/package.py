"""`.mlpackage`: a folder with a manifest, a model, and the weights of its programs.

NAME.mlpackage/Manifest.json
NAME.mlpackage/Data/com.apple.CoreML/model.mlmodel
NAME.mlpackage/Data/com.apple.CoreML/weights/weight.bin
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import secrets
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mlferry import limits
from mlferry.errors import ModelFileError
from mlferry.spec.blobs import BlobStore

MANIFEST = "Manifest.json"
DATA = "Data"
WEIGHTS = "weights"
# How messages spell the folder of a model.
MODEL_PATH = "@model_path"


def is_package(path: Path) -> bool:
    """Whether a path names a package."""
    return path.is_dir() and (path / MANIFEST).exists()


def model_file(package: Path) -> Path:
    """The file of the model in a package, according to its manifest.

    Raises:
        ModelFileError: the manifest is damaged, or names a file that is not in the package.
    """
    manifest = _manifest(safe_path(package, MANIFEST))
    entries = manifest.get("itemInfoEntries")
    root = manifest.get("rootModelIdentifier")
    if not isinstance(entries, dict) or not isinstance(root, str) or root not in entries:
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
        result = json.loads(text, object_pairs_hook=_without_doubles)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    if not isinstance(result, dict):
        raise ModelFileError(f"{path} is not a JSON object")
    return result


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice")
    return entries


def _inside(package: Path, relative: str) -> Path:
    """A file in a package."""
    parts = PurePosixPath(relative).parts
    if relative.startswith("/") or "\\" in relative or ".." in parts or ":" in relative:
        raise ModelFileError(
            f"{package / MANIFEST}: the path {relative!r} leads out of the package"
        )
    path = safe_path(package, DATA, *parts)
    try:
        result = path.is_file()
    except OSError:  # a name that no file can have
        result = False
    if not result:
        raise ModelFileError(
            f"{package / MANIFEST} names {relative!r}, which is not in the package"
        )
    return path


def safe_path(folder: Path, *parts: str) -> Path:
    """A path inside a folder.

    A part may be a link to a regular file in the same folder, or in the download cache that the
    folder belongs to: model hubs keep the files of all versions in a folder `blobs`, beside
    `snapshots` of links.

    Raises:
        ModelFileError: a part is a link to somewhere else, or to a folder.
    """
    path = folder
    for part in parts:
        path = path / part
        if os.path.islink(path) and not _is_safe(folder, path):  # noqa: PTH114  see `_is_safe`
            package = next((p for p in (path, *path.parents) if p.suffix == ".mlpackage"), folder)
            raise ModelFileError(
                f"{path} is a link to {str(path.readlink())!r}, which is neither in the "
                "package nor in its download cache. If you trust it, copy what it points to: "
                f"cp -RL {shlex.quote(str(package))} copy.mlpackage"
            )
    return path


_SNAPSHOTS, _BLOBS = "snapshots", "blobs"


def _is_safe(folder: Path, link: Path) -> bool:
    """Whether a link leads to a file that belongs to a folder; see `safe_path`."""
    try:
        # Path.is_symlink and Path.resolve raise for names that are too long, and for circular links
        target = Path(os.path.realpath(link))
        if not target.is_file():
            return False
        real = folder.resolve()
    except OSError:
        return False
    if real in target.parents:
        return True
    stores = [
        (above.parent / _BLOBS).resolve() for above in real.parents if above.name == _SNAPSHOTS
    ]
    return target.parent in stores


_AUTHOR = "com.apple.CoreML"


def save_package(
    spec: Iterable[bytes],
    path: Path,
    source: Path | None,
    has_weights: bool,
    elsewhere: Mapping[str, Path] | None = None,
    memory: Mapping[str, BlobStore] | None = None,
) -> Path:
    """Write an `.mlpackage` completely or not at all.

    Args:
        spec: the model's message, in pieces.
        path: the path of the package; an existing one is replaced.
        source: the file of the message that the model was read from, whose weights and, where it
            lay in a package, whose other entries are kept; None for a model in memory.
        has_weights: whether the model needs the weights of the source.
        elsewhere: files of weights in other folders, by the names that the message has for them.
        memory: files of weights that are not written yet, likewise.

    Returns:
        the path.

    Raises:
        ModelFileError: the folder is missing or cannot be written, or another thing is there.
    """
    if path.suffix != ".mlpackage":
        raise ModelFileError(f"{path}: the suffix of a package must be .mlpackage")
    if path.exists() and not is_package(path):
        raise ModelFileError(f"cannot write {path}: what exists there is not a package")
    place = path.resolve() if path.is_symlink() else path
    temporary = place.with_name(f".{place.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        _write(temporary, spec, source, has_weights, elsewhere or {}, memory or {})
        _put_in_place(temporary, place)
    except OSError as error:
        raise ModelFileError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _write(
    folder: Path,
    spec: Iterable[bytes],
    source: Path | None,
    has_weights: bool,
    elsewhere: Mapping[str, Path],
    memory: Mapping[str, BlobStore],
) -> None:
    """A package, file by file."""
    folder.mkdir()
    old = _package_of(source)
    if old is not None and source is not None:
        _copy(old, old, folder)
        message = folder / source.relative_to(old)
        manifest = _manifest(folder / MANIFEST)
    else:
        message = folder / DATA / _AUTHOR / "model.mlmodel"
        message.parent.mkdir(parents=True)
        manifest = _new_manifest(spec, has_weights)
        if has_weights and source is not None:
            (message.parent / WEIGHTS).mkdir()
            _copy(source.parent, source.parent / WEIGHTS, message.parent / WEIGHTS)
    for name, file in elsewhere.items():
        place = message.parent / name.removeprefix(f"{MODEL_PATH}/")
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        shutil.copyfile(file, place)
    for name, store in memory.items():
        if store.is_empty:
            continue
        place = message.parent / name.removeprefix(f"{MODEL_PATH}/")
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        with place.open("wb") as stream:
            store.write(stream)
    for file, data in (
        (message, spec),
        (folder / MANIFEST, [json.dumps(manifest, indent=4).encode()]),
    ):
        file.unlink(missing_ok=True)  # if it is a link, its target stays as it is
        with file.open("wb") as stream:
            for part in data:
                stream.write(part)
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _copy(owner: Path, folder: Path, target: Path) -> None:
    """Copy the content of a folder of `owner`: targets of safe links, other links as links."""
    shutil.copytree(folder, target, symlinks=True, dirs_exist_ok=True)
    for inside, _, names in os.walk(folder):
        for name in names:
            file = Path(inside, name)
            if file.is_symlink() and _is_safe(owner, file):
                copied = target / file.relative_to(folder)
                copied.unlink()
                shutil.copyfile(file, copied)


def _package_of(message: Path | None) -> Path | None:
    """The package that holds a message."""
    for folder in message.parents if message is not None else ():
        if is_package(folder):
            return folder
    return None


def _new_manifest(message: Iterable[bytes], has_weights: bool) -> dict[str, Any]:
    """Identifiers are derived from the message, so the same model makes the same package."""
    digest = hashlib.sha256()
    for part in message:
        digest.update(part)
    content = digest.hexdigest()
    root = str(uuid.uuid5(_IDENTIFIERS, f"{content} model"))
    entries = {root: _entry("model.mlmodel", "CoreML Model Specification")}
    if has_weights:
        weights = str(uuid.uuid5(_IDENTIFIERS, f"{content} weights"))
        entries[weights] = _entry(WEIGHTS, "CoreML Model Weights")
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": root,
    }


_IDENTIFIERS = uuid.uuid5(uuid.NAMESPACE_URL, "mlpackage")


def _entry(name: str, description: str) -> dict[str, str]:
    return {
        "author": _AUTHOR,
        "description": description,
        "name": name,
        "path": f"{_AUTHOR}/{name}",
    }


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename a folder in place of what has the name, in one step if the system can do so."""
    if not path.exists():
        temporary.rename(path)
        return
    if _exchanged(temporary, path):
        return
    old = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.old")
    path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD of Linux


def _exchanged(one: Path, two: Path) -> bool:
    """Exchange two paths in one step; False if the system cannot."""
    names = os.fsencode(one), os.fsencode(two)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            return bool(library.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0)
        if sys.platform == "darwin":
            return bool(library.renamex_np(names[0], names[1], _EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):
        return False
    return False
