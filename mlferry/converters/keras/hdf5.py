"""Untrusted HDF5 files: a separate process finds the arrays, and this one reads them.

It is separate because the HDF5 library itself crashes, or never ends, on some damaged files;
docs/security.md has the figures.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mlferry import limits
from mlferry.converters import isolated
from mlferry.converters.keras import hdf5_worker
from mlferry.errors import MissingDependencyError, ModelFileError
from mlferry.numerics.shapes import Array
from mlferry.spec import mapped

_BYTES_A_SECOND = 10_000_000  # bytes of a file that add to its processor time
_WORKER = isolated.Worker(hdf5_worker.__file__, "the HDF5 library")
_UNREAD = ("optimizer_weights", "optimizer", "_optimizer")


class StoredArray:
    """An array of a file, read on demand.

    Attributes:
        shape: its shape.
        dtype: its type.
    """

    def __init__(self, file: BinaryIO, name: str, entry: Mapping[str, Any]) -> None:
        self.shape = tuple(entry["shape"])
        self.dtype = np.dtype(entry["dtype"])
        self._file, self._name, self._offset = file, name, entry["offset"]

    def stored_bytes(self) -> int:
        """See `Group.stored_bytes`."""
        return int(math.prod(self.shape)) * (4 if self.dtype.kind == "f" else 1)

    def read(self) -> Array:
        """The values; those of a large array stay in the file until they are used.

        Raises:
            ModelFileError: the file ends before they do.
        """
        count = math.prod(self.shape)
        self._file.seek(0, os.SEEK_END)
        left = self._file.tell() - self._offset
        if count * self.dtype.itemsize > left:
            raise ModelFileError(
                f"the array {self._name} takes {count * self.dtype.itemsize} bytes; the file ends "
                f"{max(left, 0)} bytes behind its start"
            )
        if count * self.dtype.itemsize >= mapped.LEAST and os.name == "posix":
            return mapped.mapped(self._file, self._offset, self.shape, self.dtype)
        self._file.seek(self._offset)
        return np.fromfile(self._file, self.dtype, count).reshape(self.shape)


class Group(Mapping[str, "Group | StoredArray"]):
    """A group of a file: its groups and arrays by name or path.

    Attributes:
        attrs: its texts and lists of texts; attributes of other kinds are None.
    """

    def __init__(self, tree: Mapping[str, Any], files: Mapping[bool, BinaryIO], name: str) -> None:
        self.attrs: Mapping[str, Any] = tree["attrs"]
        self._items: dict[str, Group | StoredArray] = {
            key: Group(inner, files, f"{name}/{key}") for key, inner in tree["groups"].items()
        }
        for key, entry in tree["arrays"].items():
            if entry is not None:
                self._items[key] = StoredArray(files[entry["spilled"]], f"{name}/{key}", entry)

    def __getitem__(self, path: str) -> Group | StoredArray:
        first, _, rest = path.strip("/").partition("/")
        item = self._items[first]
        if not rest:
            return item
        if not isinstance(item, Group):
            raise KeyError(path)
        return item[rest]

    def stored_bytes(self) -> int:
        """The bytes of its arrays in a model, in which floats have 32 bits."""
        return sum(item.stored_bytes() for item in self._items.values())

    def group(self, *names: str) -> Group:
        """The group of the first name that exists; an empty group if none does.

        Raises:
            ModelFileError: an array has the name.
        """
        for name in names:
            if name in self:
                item = self[name]
                if isinstance(item, Group):
                    return item
                raise ModelFileError(f"the file has an array {name!r} where a group should be")
        return Group({"attrs": {}, "groups": {}, "arrays": {}}, {}, "")

    def array(self, path: str) -> Array:
        """The values of an array.

        Raises:
            ModelFileError: there is none.
        """
        item = self.get(path)
        if not isinstance(item, StoredArray):
            raise ModelFileError(f"the file lists an array {path!r} and does not hold it")
        return item.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@contextmanager
def opened(path: Path, name: object = None) -> Iterator[Group]:
    """The content of an HDF5 file; its arrays can be read inside the block.

    Args:
        name: what messages call it, if not by its path.

    Raises:
        ModelFileError: the file is damaged, refers to other files, or is not an HDF5 file.
        LimitError: it asks for more than `mlferry.limits` allow.
        MissingDependencyError: h5py is not installed.
    """
    shown = str(name or path)
    if importlib.util.find_spec("h5py") is None:
        raise MissingDependencyError("reading Keras files needs h5py: pip install 'mlferry[keras]'")
    with tempfile.TemporaryDirectory(prefix="mlferry-") as folder, _our_errors(shown):
        spill = Path(folder) / "arrays"
        tree = _tree(path, spill, shown)
        with path.open("rb") as file, spill.open("rb") as decoded:
            yield Group(tree, {False: file, True: decoded}, "")


@contextmanager
def _our_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"cannot read {name}: {error.strerror or error}") from error


def _tree(path: Path, spill: Path, name: str) -> Mapping[str, Any]:
    result = limits.current()
    size = path.stat().st_size
    request = {
        "path": str(path.resolve()),
        "spill": str(spill),
        "skip": _UNREAD,
        "limits": {**asdict(result), "size": size},
    }
    if result.isolated:
        seconds = result.seconds + size / _BYTES_A_SECOND
        try:
            answer = json.loads(*_WORKER.ask(name, "answer", request, [], seconds))
        except isolated.Refused as error:
            answer = {"damaged": str(error)}
    else:
        answer = hdf5_worker.answer(request)
    if "limit" in answer:
        limit, amount, subject = answer["limit"]
        if limit == "expansion":
            limits.check_growth(size, amount, f"{name}: {subject}")
        limits.check(limit, amount, f"{name}: {subject}")
    if "memory" in answer:
        raise isolated.over_memory(name, _WORKER.library)
    if "refused" in answer:
        raise ModelFileError(f"{name}: {answer['refused']}")
    if "tree" not in answer:
        raise ModelFileError(f"{name} is damaged or cut off: {answer.get('damaged')}")
    tree: Mapping[str, Any] = answer["tree"]
    return tree
