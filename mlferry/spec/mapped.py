"""Large arrays that lie in files: those of a source, and those of a scratch file.

Memory that a file backs is not counted twice: the system drops pages of a map when others need
room, and reads them again. What is mapped here is never written through the map.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from mlferry.errors import ModelFileError
from mlferry.numerics.shapes import Array

LEAST = 1 << 20
"""Bytes from which an array is worth a place in a file."""

IN_MEMORY = 64 << 20
"""Bytes that a scratch file keeps in memory before it is made."""

_SEGMENT = 256 << 20  # bytes that are mapped at once: each map holds a file open
_AT_ONCE = 1 << 22  # bytes of a piece


class _ScratchMap(mmap.mmap):
    """A part of a scratch file, which nobody else can change."""


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was mapped.

    Reading a map beyond the end of its file kills a process, and what is written into the file
    shows in the map.
    """

    path: Path
    identity: tuple[int, int]
    content: tuple[int, int]

    @classmethod
    def of(cls, file: BinaryIO) -> FileState:
        """The state of an open file."""
        return cls(Path(file.name).absolute(), *_state(os.fstat(file.fileno())))

    def check(self) -> None:
        """Raise a `ModelFileError` if the file was written to; one in its place does no harm."""
        try:
            identity, content = _state(self.path.stat())
        except OSError:
            return  # without its name the file is still there
        if identity == self.identity and content != self.content:
            raise ModelFileError(f"{self.path} was changed while it was in use: load it again")


def _state(status: os.stat_result) -> tuple[tuple[int, int], tuple[int, int]]:
    return (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)


class _FileMap(mmap.mmap):
    """A part of a file that somebody may change."""

    state: FileState


def mapped(file: BinaryIO, offset: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """An array of a file, which cannot be written; none of it is read before it is used.

    Args:
        file: open for reading; it may be closed afterwards.
        offset: of the first element in the file, in bytes.
        shape: of the array, row-major.
        dtype: of its elements.

    Raises:
        OSError: the file cannot be mapped.
        ValueError: it ends before the array does.
    """
    kind = np.dtype(dtype)
    begin = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    count = math.prod(shape)
    size = offset - begin + count * kind.itemsize
    memory = _FileMap(file.fileno(), size, access=mmap.ACCESS_READ, offset=begin)
    memory.state = FileState.of(file)
    return np.frombuffer(memory, kind, count, offset - begin).reshape(shape)


def map_of(array: Array) -> mmap.mmap | None:
    """The map in which the elements of an array lie; None for an array in memory."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) else None


def check(array: Array) -> None:
    """Raise a `ModelFileError` if an array lies in a file that was changed since it was mapped."""
    memory = map_of(array)
    if isinstance(memory, _FileMap):
        memory.state.check()


def is_scratch(array: Array) -> bool:
    """Whether an array lies in a scratch file."""
    return isinstance(map_of(array), _ScratchMap)


def let_go(array: Array) -> None:
    """Let the system have the memory of an array of a file; it is read again when needed."""
    memory = map_of(array)
    if memory is None or array.nbytes < LEAST or not hasattr(mmap, "MADV_DONTNEED"):
        return
    whole = np.frombuffer(memory, np.uint8)
    first = _address(array) - _address(whole)
    spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    first += sum(span for span in spans if span < 0)
    last = first + sum(map(abs, spans)) + array.itemsize
    begin = first // mmap.PAGESIZE * mmap.PAGESIZE
    memory.madvise(mmap.MADV_DONTNEED, begin, min(last, len(whole)) - begin)


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def pieces(array: Array, at_once: int = _AT_ONCE) -> Iterator[Array]:
    """The elements of an array in row-major order, as flat arrays of a few megabytes.

    The memory of each piece of a file is released after it.

    Raises:
        ModelFileError: the file was changed since it was mapped.
    """
    check(array)
    if array.nbytes <= at_once or array.ndim == 0:
        yield np.ascontiguousarray(array).reshape(-1)
        let_go(array)
        return
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        step = max(1, at_once // array.itemsize)
        for start in range(0, flat.size, step):
            check(flat)
            yield flat[start : start + step]
            let_go(flat[start : start + step])
        return
    row = array.nbytes // len(array)
    step = max(1, at_once // max(1, row))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        if step == 1 and row > at_once:
            yield from pieces(part[0], at_once)
        else:
            yield np.ascontiguousarray(part).reshape(-1)
    let_go(array)


def equal(one: Array, other: Array) -> bool:
    """Whether two arrays of one type have the same bytes, compared piece by piece."""
    if one.shape != other.shape:
        return False
    pairs = zip(pieces(one), pieces(other), strict=True)
    return all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in pairs)


def _copy(part: Array, out: Array) -> None:
    out[...] = part


class Scratch:
    """Arrays that are kept: in memory, and beyond 64 MB in a file.

    The file lies in the folder of temporary files (``TMPDIR``) and has no name where the system
    allows that: it goes with the last array in it, however the process ends.

    Args:
        in_memory: bytes that stay in memory; by default 64 MB.
    """

    def __init__(self, in_memory: int | None = None) -> None:
        self._in_memory = IN_MEMORY if in_memory is None else in_memory
        self._held = 0
        self._own: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()
        self._file: BinaryIO | None = None
        self._map: _ScratchMap | None = None
        self._maps: list[_ScratchMap] = []
        self._begin = self._end = 0  # of the segment that is mapped; in the file, in bytes
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle nothing: arrays that are pickled are in memory where they arrive."""
        return Scratch, (self._in_memory,)

    def let_go(self) -> None:
        """Let the system have the memory of all arrays in the file."""
        for each in self._maps:
            let_go(np.frombuffer(each, np.uint8))

    def keep(self, array: Array) -> Array:
        """An array with the same elements that is kept.

        It is the array itself if it is kept already, or stays in memory.
        """
        if is_scratch(array) or self._is_held(array):
            return array
        if map_of(array) is None and not self._goes_into_file(array.nbytes):
            self._held += array.nbytes
            return array
        return self.keep_pieces(pieces(array), array.shape, array.dtype)

    def keep_pieces(
        self,
        parts: Iterable[Array],
        shape: tuple[int, ...],
        dtype: DTypeLike,
        write: Callable[[Array, Array], None] = _copy,
    ) -> Array:
        """As `keep`, of an array that comes in pieces.

        Args:
            parts: flat arrays, in row-major order.
            shape: of all of them together.
            dtype: of what is kept.
            write: what is kept of a part, into an array of its size, the second argument.

        Raises:
            ModelFileError: the scratch file cannot be written.
        """
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        with self._lock:
            if not self._goes_into_file(size):
                self._held += size
                whole = np.empty(math.prod(shape), kind)
                self._own[id(whole)] = whole
                at = 0
                for part in parts:
                    write(part, whole[at : at + part.size])
                    at += part.size
                return whole.reshape(shape)
            try:
                return self._written(parts, size, kind, write).reshape(shape)
            except OSError as error:
                raise ModelFileError(
                    f"cannot write a temporary file of {size:,} bytes into "
                    f"{tempfile.gettempdir()}: {error.strerror or error}; the environment "
                    "variable TMPDIR names another folder"
                ) from error

    def _is_held(self, array: Array) -> bool:
        """Whether the elements are those of an array that is in memory for this file."""
        base: object = array
        while isinstance(base, np.ndarray) and base.base is not None:
            base = base.base
        return self._own.get(id(base)) is base

    def _goes_into_file(self, size: int) -> bool:
        return size >= LEAST and (self._file is not None or self._held + size > self._in_memory)

    def _written(
        self,
        parts: Iterable[Array],
        size: int,
        kind: np.dtype[Any],
        write: Callable[[Array, Array], None],
    ) -> Array:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="mlferry-", buffering=0)  # noqa: SIM115 - for its arrays
            weakref.finalize(self, self._file.close)
        assert self._file is not None
        at = -(-self._end // 64) * 64
        if self._map is None or at + size > self._begin + len(self._map):
            self._begin = at = -(-at // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            length = max(size, _SEGMENT)
            self._file.truncate(at + length)
            self._map = _ScratchMap(self._file.fileno(), length, access=mmap.ACCESS_READ, offset=at)
            self._maps.append(self._map)
        self._file.seek(at)
        for part in parts:
            if write is _copy:
                kept = np.ascontiguousarray(part, kind)
            else:
                write(part, kept := np.empty(part.size, kind))
            data = kept.data.cast("B")
            while data:
                data = data[self._file.write(data) :]
        self._end = at + size
        return np.frombuffer(self._map, kind, size // kind.itemsize, at - self._begin)
