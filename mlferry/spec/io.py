"""Load and save `.mlmodel` files."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError

from mlferry import limits
from mlferry.errors import ModelFileError
from mlferry.spec import package
from mlferry.spec.proto import model_pb2
from mlferry.spec.streaming import serialized

_SOURCES = {
    ".onnx": "an ONNX model",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow model",
}
_FOREIGN = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file; convert it: mlferry.convert({path!r})"),
    (b"PK\x03\x04", "a zip archive (a .keras file?); convert it: mlferry.convert({path!r})"),
)


def load_spec(path: str | os.PathLike[str]) -> model_pb2.Model:
    """Read the model from an `.mlmodel` file or an `.mlpackage`.

    Raises:
        ModelFileError: the file is missing, empty, cut off, or not a Core ML model.
    """
    file = file_of(Path(path))
    return parse_spec(limits.read_message(file), str(path))


def file_of(path: Path) -> Path:
    """The file of a model's message: the path itself, or a file inside an `.mlpackage`.

    Raises:
        ModelFileError: it is a folder of another kind, or a damaged package.
    """
    if package.is_package(path):
        return package.model_file(path)
    if path.is_dir():
        raise ModelFileError(
            f"{path} is a folder without a {package.MANIFEST}: give the path of an .mlmodel file, "
            "or of an .mlpackage"
        )
    return path


def parse_spec(data: bytes, path: str = "the data") -> model_pb2.Model:
    """Read the bytes of a `.mlmodel` file; see `load_spec`."""
    if not data:
        raise ModelFileError(f"{path} is empty")
    for magic, kind in _FOREIGN:
        if data.startswith(magic):
            raise ModelFileError(f"{path} is {kind.format(path=path)}")
    spec = model_pb2.Model()
    try:
        spec.ParseFromString(data)
    except DecodeError as error:
        source = _SOURCES.get(Path(path).suffix.lower())
        hint = f"; if it is {source}, convert it: mlferry.convert({path!r})" if source else ""
        raise ModelFileError(
            f"{path} is cut off, damaged, or not a Core ML model ({len(data)} bytes; {error}){hint}"
        ) from error
    if spec.specificationVersion == 0 or spec.WhichOneof("Type") is None:
        raise ModelFileError(
            f"{path} is not a Core ML model: it has "
            + ("no specification version" if not spec.specificationVersion else "no known kind")
        )
    return spec


def save_spec(spec: model_pb2.Model, path: str | os.PathLike[str]) -> Path:
    """Write an `.mlmodel` file completely or not at all; a missing suffix is added.

    Raises:
        ModelFileError: the suffix is another one, or the folder is missing.
        LimitError: a model over 2 GB.
    """
    file = Path(path)
    if file.suffix == "":
        file = file.with_name(file.name + ".mlmodel")
    if file.suffix != ".mlmodel":
        raise ModelFileError(f"{path}: the suffix must be .mlmodel, not {file.suffix}")
    write_all({file: serialized(spec)})
    return file


def write_atomic(file: Path, data: bytes) -> None:
    """Write to a temporary file beside `file`, then rename, so that no file is ever half written.

    A process that is killed may leave the temporary file, called `.<name>.<number>.part`.

    Raises:
        ModelFileError: the folder is missing or cannot be written, the disk is full, or the file
            exists and is read-only.
    """
    write_all({file: data})


def write_all(files: Mapping[Path, bytes | Iterable[bytes]]) -> None:
    """Write several files, none of which gets its name before all are on the disk.

    Args:
        files: contents, whole or in pieces.

    Raises:
        ModelFileError: as `write_atomic`; then all files are as before, unless a name cannot be
            given to one although the folder takes new files.
    """
    for file in files:
        if file.exists() and not os.access(file, os.W_OK):
            raise ModelFileError(f"cannot write {file}: the file exists and is read-only")
    temporary: dict[Path, Path] = {}
    try:
        for file, data in files.items():
            part = file.with_name(f".{file.name[:200]}.{secrets.token_hex(4)}.part")
            temporary[file] = part
            _write(part, file, data)
        for file, part in temporary.items():
            try:
                os.replace(part, file)
            except OSError as error:
                raise ModelFileError(f"cannot write {file}: {error.strerror or error}") from error
    except BaseException:  # also for an interrupt, as soon as a file may exist
        for part in temporary.values():
            with contextlib.suppress(OSError):
                part.unlink()
        raise


def _write(temporary: Path, file: Path, data: bytes | Iterable[bytes]) -> None:
    try:
        # the system applies the user's mask; changing it to read it would affect other threads
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        reason = error.strerror or error
        raise ModelFileError(f"cannot write into {file.parent}: {reason}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            for part in [data] if isinstance(data, bytes) else data:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ModelFileError(f"cannot write {file}: {error.strerror or error}") from error


_BINARY = getattr(os, "O_BINARY", 0)  # without it Windows translates line ends
