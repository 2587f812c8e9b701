"""Reads the structure of an HDF5 file in a process of its own (`mlferry.converters.worker`).

The HDF5 library crashes on some damaged files and runs forever on others; here it can only stop
this process. The answer to a request is the tree of the file. Arrays stored in the file as in
memory are described by their place; others, such as compressed ones, are decoded into a second
file. It imports nothing of mlferry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import h5py

_BLOCK = 16 << 20  # bytes decoded at a time
_TEXTS = "OSU"


class RefusedFile(Exception):
    """The file holds something that is not read; the message says what."""


class OverLimit(Exception):
    """The file exceeds a limit: its name, the amount, and the start of the message."""


def scan(request: dict[str, Any]) -> dict[str, Any]:
    """The tree of a file.

    Args:
        request: "path" of the file, "spill" for the path of the file of decoded arrays, "skip"
            for names of groups at the top that are not read, and "limits".

    Raises:
        Refused: links to other files, arrays kept elsewhere, groups inside themselves.
        OverLimit: more than the limits allow.
    """
    import h5py

    # avoids importing pathlib in a process that is started for a file
    with h5py.File(request["path"], "r") as file, open(request["spill"], "wb") as spill:  # noqa: PTH123
        result = _FileScan(h5py, spill, request)
        tree = result.group(file, "", ())
        result.count("weights", result.values, "its arrays take bytes:")
        return tree


class _FileScan:
    def __init__(self, h5py: ModuleType, spill: BinaryIO, request: dict[str, Any]) -> None:
        self.h5py, self.spill = h5py, spill
        self.limits, self.skip = request["limits"], request["skip"]
        self.objects = self.texts = self.values = 0

    def count(self, name: str, amount: int, subject: str) -> None:
        if amount > self.limits[name]:
            raise OverLimit(name, amount, subject)

    def group(self, group: h5py.Group, where: str, above: tuple[int, ...]) -> dict[str, Any]:
        info = self.h5py.h5o.get_info(group.id)
        if info.addr in above:
            raise RefusedFile(f"the group {where or '/'} lies inside itself")
        self.count("depth", len(above), "its groups are nested in levels:")
        entries: dict[str, Any] = {"attrs": self.attributes(group), "groups": {}, "arrays": {}}
        for name in group:
            if not above and name in self.skip:
                continue
            self.objects += 1
            self.count("objects", self.objects, "its groups, arrays and attributes are")
            path = f"{where}/{name}"
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise RefusedFile(
                    f"{path} is a link to elsewhere; only what lies in the file is read"
                )
            item = group[name]
            if isinstance(item, self.h5py.Group):
                entries["groups"][name] = self.group(item, path, (*above, info.addr))
            elif isinstance(item, self.h5py.Dataset):
                entries["arrays"][name] = self.array(item, path)
        return entries

    def attributes(self, holder: h5py.Group | h5py.Dataset) -> dict[str, Any]:
        """Texts and lists of texts; None for anything else."""
        entries: dict[str, Any] = {}
        for name in holder.attrs:
            self.objects += 1
            self.count("objects", self.objects, "its groups, arrays and attributes are")
            kind = holder.attrs.get_id(name)
            self.texts += kind.dtype.itemsize * math.prod(kind.shape)
            self.count("config", self.texts, "its texts have bytes:")
            entries[name] = self.text(holder.attrs[name]) if kind.dtype.kind in _TEXTS else None
        return entries

    def text(self, value: object) -> Any:
        if isinstance(value, str):  # h5py keeps bytes that are not UTF-8
            value = value.encode("utf-8", "surrogateescape")
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
            self.texts += len(value)
            self.count("config", self.texts, "its texts have characters:")
            return value
        return [self.text(item) for item in value.ravel()] if hasattr(value, "ravel") else None

    def array(self, dataset: h5py.Dataset, where: str) -> dict[str, Any] | None:
        """The shape, type and place of an array; None unless its elements are numbers."""
        plan = dataset.id.get_create_plist()
        if plan.get_external_count():
            raise RefusedFile(f"the array {where} is kept in another file")
        if plan.get_layout() == self.h5py.h5d.VIRTUAL:
            raise RefusedFile(f"the array {where} is composed of other files")
        kind = dataset.dtype
        if dataset.shape is None or kind.hasobject or kind.kind in _TEXTS:
            return None
        size = kind.itemsize * math.prod(dataset.shape)
        self.values += size
        if self.values > self.limits["weights"]:  # the total is reported at the end
            return None
        entries = {"shape": [int(n) for n in dataset.shape], "dtype": kind.str, "spilled": False}
        offset = dataset.id.get_offset()
        stored = dataset.id.get_type()
        if offset is not None and stored.equal(self.h5py.h5t.py_create(kind)):
            return {**entries, "offset": offset}
        total = self.spill.tell() + size
        if total > max(self.limits["always"], self.limits["expansion"] * self.limits["size"]):
            raise OverLimit("expansion", total, "its compressed arrays take")
        place = self.spill.tell()
        self.decode(dataset, size)
        return {**entries, "spilled": True, "offset": place}

    def decode(self, dataset: h5py.Dataset, size: int) -> None:
        if not dataset.shape or not size:
            self.spill.write(dataset[()].tobytes())
            return
        rows = max(1, _BLOCK * dataset.shape[0] // size)
        for start in range(0, dataset.shape[0], rows):
            self.spill.write(dataset[start : start + rows].tobytes())


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The tree, or the error, as a message."""
    try:
        return {"tree": scan(request)}
    except OverLimit as error:
        return {"limit": error.args}
    except MemoryError:
        return {"memory": True}
    except RefusedFile as error:
        return {"refused": str(error)}
    except Exception as error:  # h5py raises many errors, even SystemError and RecursionError
        return {"damaged": f"{type(error).__name__}: {error}"[:400]}


def load() -> None:
    """Load libraries in advance, which takes time and memory."""
    import h5py  # noqa: F401 - loaded once, before memory is limited


CALLS: dict[str, Callable[[dict[str, Any]], list[bytes]]] = {
    "answer": lambda request: [json.dumps(answer(request)).encode()]
}
EACH_APART = True  # a damaged file may corrupt what the library keeps in memory
