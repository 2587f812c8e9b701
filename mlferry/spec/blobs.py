"""`weight.bin`: the constants of an ML Program, stored outside its message.

Little endian throughout. A header of 64 bytes holds the number of blobs and the version, 2. A blob
has 64 bytes of metadata (a sentinel, its type, its size in bytes, the offset of its data, its
padding in bits), followed by its data; each begins at a multiple of 64. A message names a blob by
the offset of its metadata.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import ModelFileError
from mlferry.progress import progress_of
from mlferry.spec import mapped

_ALIGNMENT = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
_HEADER = struct.Struct("<II56x")
_METADATA = struct.Struct("<IIQQQ32x")

# The storage numbers its types in its own way, not as messages do.
_NAMES = (
    *("fp16", "fp32", "uint8", "int8", "bf16", "int16", "uint16", "int4", "uint1", "uint2"),
    *("uint4", "uint3", "uint6", "int32", "uint32", "fp8e4m3fn", "fp8e5m2"),
)
DTYPES = dict(enumerate(_NAMES, start=1))


@dataclass(frozen=True)
class BlobFileEntry:
    """A constant in a file.

    Attributes:
        dtype: the type of its elements.
        data: its bytes, a view of the file.
    """

    dtype: str
    data: NDArray[np.uint8]


_CODES = {name: code for code, name in DTYPES.items()}


class BlobSource(Protocol):
    """Where constants are stored: in a file, or in memory."""

    def read(self, offset: int) -> BlobFileEntry:
        """The blob whose metadata begin at an offset; see `BlobFile.read`."""

    def __len__(self) -> int: ...


class BlobStore:
    """A `weight.bin` that is not yet written.

    Its large blobs lie in a scratch file once they take more than 64 MB; smaller ones are the
    arrays themselves, not copies.

    Attributes:
        scratch: where the large blobs are kept. An array that was put there before it was added is
            not copied.
    """

    def __init__(self) -> None:
        self.scratch = mapped.Scratch()
        self._blobs: dict[int, tuple[BlobFileEntry, int]] = {}
        self._end = _HEADER.size

    def __len__(self) -> int:
        return self._end

    @property
    def is_empty(self) -> bool:
        """Whether there are no blobs."""
        return not self._blobs

    def add(self, dtype: str, data: NDArray[np.uint8], padding_bits: int = 0) -> int:
        """Append a blob.

        Args:
            dtype: the type of its elements, a name in `DTYPES`.
            data: its bytes.
            padding_bits: how many bits of the last byte are unused.

        Returns:
            the offset of its metadata.

        Raises:
            ModelFileError: the scratch file cannot be written.
        """
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        if data.nbytes >= mapped.LEAST or mapped.map_of(data) is not None:
            data = self.scratch.keep(data)
        self._blobs[offset] = BlobFileEntry(dtype, data), padding_bits
        self._end = offset + _METADATA.size + len(data)
        return offset

    def read(self, offset: int) -> BlobFileEntry:
        """The blob whose metadata begin at an offset; see `BlobFile.read`."""
        if offset not in self._blobs:
            raise ModelFileError(f"offset {offset} of the weights in memory: no blob begins there")
        return self._blobs[offset][0]

    def write(self, stream: BinaryIO) -> None:
        """Write the file."""
        stream.write(_HEADER.pack(len(self._blobs), _VERSION))
        position = _HEADER.size
        for offset, (blob, padding) in progress_of(self._blobs.items(), "saving", len(self)):
            stream.write(bytes(offset - position))
            begin = offset + _METADATA.size
            code = _CODES[blob.dtype]
            stream.write(_METADATA.pack(_SENTINEL, code, len(blob.data), begin, padding))
            for part in mapped.pieces(blob.data):
                stream.write(part.data)
            position = begin + len(blob.data)


class BlobFile:
    """A `weight.bin`, mapped into memory.

    Raises:
        ModelFileError: the file cannot be read, or is not a `weight.bin`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            if not path.is_file() or path.is_symlink():
                raise ModelFileError(f"{path} is not a regular file")
            if size < _HEADER.size:
                raise ModelFileError(f"{path} has {size} bytes; its header alone has 64")
            with path.open("rb") as stream:
                self._bytes: NDArray[np.uint8] = mapped.mapped(stream, 0, (size,), np.uint8)
        except OSError as error:
            raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
        _, version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        if version != _VERSION:
            raise ModelFileError(
                f"{path} has version {version} of the storage; {_VERSION} is known"
            )

    def __len__(self) -> int:
        return len(self._bytes)

    def release(self) -> None:
        """Let the system reclaim the memory of data already read; it is read again when needed."""
        mapped.let_go(self._bytes)

    def check(self) -> None:
        """Raise a `ModelFileError` if the file was changed since it was opened."""
        mapped.check(self._bytes)

    def read(self, offset: int) -> BlobFileEntry:
        """The blob whose metadata begin at an offset.

        Raises:
            ModelFileError: no blob begins there, its data are not all in the file, or the file was
                changed since it was opened.
        """
        self.check()
        where = f"offset {offset} of {self.path}"
        if offset % _ALIGNMENT or not _HEADER.size <= offset <= len(self) - _METADATA.size:
            raise ModelFileError(
                f"{where}: no blob can begin there; the file has {len(self)} bytes"
            )
        raw = self._bytes[offset : offset + _METADATA.size].tobytes()
        sentinel, code, size, begin, _ = _METADATA.unpack(raw)
        if sentinel != _SENTINEL:
            raise ModelFileError(f"{where}: no blob begins there")
        if code not in DTYPES:
            raise ModelFileError(f"{where}: the type of this blob has the unknown number {code}")
        if begin % _ALIGNMENT or begin < offset + _METADATA.size or begin + size > len(self):
            raise ModelFileError(
                f"{where}: the data of this blob, {size} bytes at {begin}, do not lie in the file "
                f"of {len(self)} bytes"
            )
        return BlobFileEntry(DTYPES[code], self._bytes[begin : begin + size])
