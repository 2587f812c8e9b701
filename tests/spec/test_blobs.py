"""Files of weights: every type of elements, and files that are broken on purpose."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlferry.errors import MlferryError, ModelFileError, SpecError
from mlferry.programs.values import Weights, check_value, value_of
from mlferry.spec.blobs import DTYPES, BlobFile
from tests.programs import by_hand

RNG = np.random.default_rng(1)
HEADER, METADATA = "<II56x", "<IIQQQ32x"
SENTINEL = 0xDEADBEEF

# The number of a type in files, its name, bits of an element, and the lowest and highest value.
TYPES = [
    (1, "fp16", 16, 0, 0), (2, "fp32", 32, 0, 0), (3, "uint8", 8, 0, 255),
    (4, "int8", 8, -128, 127), (5, "bf16", 16, 0, 0), (6, "int16", 16, -32768, 32767),
    (7, "uint16", 16, 0, 65535), (8, "int4", 4, -8, 7), (9, "uint1", 1, 0, 1),
    (10, "uint2", 2, 0, 3), (11, "uint4", 4, 0, 15), (12, "uint3", 3, 0, 7),
    (13, "uint6", 6, 0, 63), (14, "int32", 32, -(2**31), 2**31 - 1),
    (15, "uint32", 32, 0, 2**32 - 1), (16, "fp8e4m3fn", 8, 0, 255), (17, "fp8e5m2", 8, 0, 255),
]  # fmt: skip
NOT_READ = ("bf16", "fp8e4m3fn", "fp8e5m2")  # no constant of a program is of these types


def packed(values: list[int], bits: int) -> bytes:
    """One stream of bits, the least significant first: bit by bit."""
    result = bytearray(-(-len(values) * bits // 8))
    for index, value in enumerate(values):
        for bit in range(bits):
            place = index * bits + bit
            result[place // 8] |= ((value >> bit) & 1) << (place % 8)
    return bytes(result)


def sample(name: str, bits: int, low: int, high: int, count: int) -> tuple[Any, bytes]:
    """Values, and how they are stored."""
    if name in ("fp16", "fp32"):
        values = RNG.standard_normal(count).astype(f"<f{bits // 8}")
        return values, values.tobytes()
    whole = [low, high, *RNG.integers(low, high, count, endpoint=True).tolist()][:count]
    return np.array(whole), packed([value % (1 << bits) for value in whole], bits)


def opened(data: bytes, folder: Path) -> BlobFile:
    path = folder / "weight.bin"
    path.write_bytes(data)
    return BlobFile(path)


def test_all_types_have_a_row() -> None:
    assert {code: name for code, name, *_ in TYPES} == DTYPES


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 65])
@pytest.mark.parametrize(("code", "name", "bits", "low", "high"), TYPES, ids=[t[1] for t in TYPES])
def test_types(
    code: int, name: str, bits: int, low: int, high: int, count: int, tmp_path: Path
) -> None:
    values, data = sample(name, bits, low, high, count)
    file, offsets = by_hand.weight_file((2, b"abcd"), (code, data), (3, b"x"))
    result = opened(file, tmp_path).read(offsets[1])
    assert result.dtype == name
    assert result.data.tobytes() == data
    if name in NOT_READ:
        return
    weights = Weights.of_folder(tmp_path)
    message = by_hand.stored(name, (count,), offsets[1])
    check_value(message, weights)
    actual = value_of(message, weights)
    assert actual.shape == (count,)
    np.testing.assert_array_equal(actual, values)
    for wrong in (count + 8, max(0, count - 8)):
        with pytest.raises(SpecError, match=rf"needs \d+ bytes; at {offsets[1]} of "):
            check_value(by_hand.stored(name, (wrong,), offsets[1]), weights)
    other = "fp32" if name != "fp32" else "int32"
    with pytest.raises(SpecError, match=f"where there are values of {name}"):
        value_of(by_hand.stored(other, (count,), offsets[1]), weights)


def test_shapes(tmp_path: Path) -> None:
    data = np.arange(24, dtype="<f4")
    file, (offset,) = by_hand.weight_file((2, data.tobytes()))
    opened(file, tmp_path)
    weights = Weights.of_folder(tmp_path)
    for shape in ((24,), (2, 3, 4), (1, 24, 1), (4, 6)):
        actual = value_of(by_hand.stored("fp32", shape, offset), weights)
        np.testing.assert_array_equal(actual, data.reshape(shape))
    message = by_hand.stored("fp32", (24,), offset)
    message.type.CopyFrom(by_hand.tensor("fp32", (None, 4)))
    with pytest.raises(SpecError, match="only fixed tensors can"):
        check_value(message, weights)


def test_constants_may_share_a_place(tmp_path: Path) -> None:
    file, (offset,) = by_hand.weight_file((2, bytes(16)))
    opened(file, tmp_path)
    weights = Weights.of_folder(tmp_path)
    assert value_of(by_hand.stored("fp32", (4,), offset), weights).shape == (4,)
    assert value_of(by_hand.stored("fp32", (2, 2), offset), weights).shape == (2, 2)


def test_reserved_bytes_and_counts_may_be_anything(tmp_path: Path) -> None:
    file, (offset,) = by_hand.weight_file((3, b"abc"))
    result = bytearray(file)
    result[0:4] = b"\xff" * 4
    result[8:64] = b"\xee" * 56
    result[offset + 32 : offset + 64] = b"\xee" * 32
    assert opened(bytes(result), tmp_path).read(offset).data.tobytes() == b"abc"


# ---- coremltools' own writer -------------------------------------------------------------------

WRITERS = {
    "fp16": ("write_fp16_data", np.uint16), "fp32": ("write_float_data", np.float32),
    "int8": ("write_int8_data", np.int8), "uint8": ("write_uint8_data", np.uint8),
    "int16": ("write_int16_data", np.int16), "uint16": ("write_uint16_data", np.uint16),
    "int32": ("write_int32_data", np.int32), "uint32": ("write_uint32_data", np.uint32),
    "int4": ("write_int4_data", np.int8), "uint1": ("write_uint1_data", np.uint8),
    "uint2": ("write_uint2_data", np.uint8), "uint3": ("write_uint3_data", np.uint8),
    "uint4": ("write_uint4_data", np.uint8), "uint6": ("write_uint6_data", np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 7, 8, 65])
@pytest.mark.parametrize("name", WRITERS)
def test_what_coremltools_writes(
    name: str, count: int, tmp_path: Path, library: Callable[[str], Any]
) -> None:
    library("coremltools")
    storage = pytest.importorskip("coremltools.libmilstoragepython")
    _, _, bits, low, high = next(row for row in TYPES if row[1] == name)
    values, data = sample(name, bits, low, high, count)
    method, dtype = WRITERS[name]
    inputs = values.view(np.uint16) if name == "fp16" else values.astype(dtype)
    path = tmp_path / "weight.bin"
    writer = storage._BlobStorageWriter(str(path))
    offsets = [getattr(writer, method)(inputs) for _ in range(2)]
    del writer
    file = BlobFile(path)
    for offset in offsets:
        assert file.read(offset).dtype == name
        assert file.read(offset).data.tobytes() == data
        actual = value_of(by_hand.stored(name, (count,), offset), Weights.of_folder(tmp_path))
        np.testing.assert_array_equal(actual, values)


# ---- broken on purpose -------------------------------------------------------------------------

GOOD, (PLACE, SECOND) = by_hand.weight_file((2, bytes(range(100))), (3, b"z" * 10))
SIZE = len(GOOD)


def changed(at: int, form: str, value: int) -> bytes:
    result = bytearray(GOOD)
    struct.pack_into(form, result, at, value)
    return bytes(result)


HEADERS = {
    "empty": b"",
    "one byte": b"x",
    "half a header": GOOD[:32],
    "a header but for a byte": GOOD[:63],
    "version 0": changed(4, "<I", 0),
    "version 1": changed(4, "<I", 1),
    "version 3": changed(4, "<I", 3),
    "version of another order": changed(4, ">I", 2),
    "version of all bits": changed(4, "<I", 2**32 - 1),
}


@pytest.mark.parametrize("name", HEADERS)
def test_broken_headers(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"weight\.bin"):
        opened(HEADERS[name], tmp_path)


def test_a_header_alone_has_no_constants(tmp_path: Path) -> None:
    file = opened(GOOD[:64], tmp_path)
    for offset in (0, 64, 128):
        with pytest.raises(ModelFileError, match="no blob can begin there"):
            file.read(offset)


OFFSETS = {
    "the header": 0, "one": 1, "misaligned": PLACE + 1, "by eight": PLACE + 8,
    "by 32": PLACE + 32, "data": PLACE + 64, "the end": SIZE, "behind": SIZE + 64,
    "far": 64 * 10**6, "2^31": 2**31, "2^32": 2**32, "2^62": 2**62, "2^63": 2**63,
    "2^64 - 64": 2**64 - 64, "2^64 - 1": 2**64 - 1, "negative": -64,
}  # fmt: skip


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets_where_nothing_begins(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"offset {OFFSETS[name]} of .*weight.bin: no blob"):
        opened(GOOD, tmp_path).read(OFFSETS[name])


NUMBERS = (0, 1, 63, 64, 65, 127, 129, SIZE, SIZE - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
           2**62, 2**63 - 1, 2**63, 2**63 + 64, 2**64 - 64, 2**64 - 1)  # fmt: skip


@pytest.mark.parametrize("value", NUMBERS)
@pytest.mark.parametrize("field", ["sentinel", "type", "size", "begin"])
def test_broken_metadata(field: str, value: int, tmp_path: Path) -> None:
    at, form, text = {
        "sentinel": (0, "<I", "no blob begins there"),
        "type": (4, "<I", "has the unknown number"),
        "size": (8, "<Q", "do not lie in the file"),
        "begin": (16, "<Q", "do not lie in the file"),
    }[field]
    stored = value % (1 << 32) if form == "<I" else value
    file = opened(changed(PLACE + at, form, stored), tmp_path)
    sane = {
        "type": stored in DTYPES,
        "size": stored <= SIZE - PLACE - 64,
        "begin": False,
    }.get(field, False)
    if sane:
        assert len(file.read(PLACE).data) <= SIZE
    else:
        with pytest.raises(ModelFileError, match=text):
            file.read(PLACE)
    assert file.read(SECOND).data.tobytes() == b"z" * 10


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_sentinel(order: str, tmp_path: Path) -> None:
    file = opened(changed(PLACE, f"{order}I", SENTINEL), tmp_path)
    if order == "<":
        assert file.read(PLACE).dtype == "fp32"
    else:
        with pytest.raises(ModelFileError, match="no blob begins there"):
            file.read(PLACE)


@pytest.mark.parametrize("padding", [1, 7, 8, 2**63, 2**64 - 1])
def test_padding_of_whole_bytes_does_not_matter(padding: int, tmp_path: Path) -> None:
    file = opened(changed(PLACE + 24, "<Q", padding), tmp_path)
    assert file.read(PLACE).data.tobytes() == bytes(range(100))


def test_data_in_front_of_its_metadata(tmp_path: Path) -> None:
    """Backwards, onto the header, and onto itself."""
    for begin in (0, 64, SECOND):
        file = opened(changed(SECOND + 16, "<Q", begin), tmp_path)
        with pytest.raises(ModelFileError, match="do not lie in the file"):
            file.read(SECOND)


@pytest.mark.parametrize("cut", [1, 9, 10, 11, 73, 74, 75, SIZE - 64])
def test_files_that_are_cut_off(cut: int, tmp_path: Path) -> None:
    file = opened(GOOD[:-cut], tmp_path)
    with pytest.raises(ModelFileError):
        file.read(SECOND)


def test_every_byte_of_the_metadata_changed(tmp_path: Path) -> None:
    """Only errors of ours, whatever stands there."""
    rng = np.random.default_rng(2)
    for at in range(64, 128):
        for value in (0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))):
            result = bytearray(GOOD)
            result[at] = value
            file = opened(bytes(result), tmp_path)
            with contextlib.suppress(ModelFileError):
                assert len(file.read(PLACE).data) <= SIZE


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are POSIX's")
def test_other_things_than_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("link", "folder", "pipe", "circle", "missing"):
        with pytest.raises(ModelFileError):
            BlobFile(tmp_path / name)


def test_a_huge_constant_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    file, (offset,) = by_hand.weight_file((2, bytes(16)))
    opened(file, tmp_path)
    for shape in ((2**40,), (2**31, 2**31), (2**62, 4)):
        with pytest.raises(MlferryError, match=r"takes bytes:|bytes; at"):
            value_of(by_hand.stored("fp32", shape, offset), Weights.of_folder(tmp_path))
