"""Arrays in files: what is read in pieces is what was written, and nothing stays behind."""

from __future__ import annotations

import errno
import pickle
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from mlferry.errors import ModelFileError
from mlferry.spec import mapped
from mlferry.spec.blobs import BlobFile, BlobStore

RNG = np.random.default_rng(3)
ARRAYS = {
    "a number": np.array(2.5, np.float32),
    "nothing": np.zeros((0, 4), np.float32),
    "a vector": RNG.normal(size=4099),
    "a matrix": RNG.normal(size=(67, 131)).astype(np.float32),
    "turned": RNG.normal(size=(67, 131)).astype(np.float16).T,
    "axes moved": RNG.integers(0, 255, (5, 7, 11, 13), np.uint8).transpose(2, 0, 3, 1),
    "long rows": RNG.normal(size=(3, 5000)).T.copy().T,
    "backwards": RNG.normal(size=(60, 70))[::-1, ::2],
    "one value": np.broadcast_to(np.float32(3), (50, 60)),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LEAST", 16)
    monkeypatch.setattr(mapped, "_SEGMENT", 1 << 13)


def in_a_file(array: np.ndarray[Any, Any], folder: Path) -> np.ndarray[Any, Any]:
    """The array as a map of a file, behind some other bytes, in the same strides."""
    path = folder / "array"
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    whole = array.transpose(order).copy()
    path.write_bytes(b"12345678" + whole.tobytes())
    with path.open("rb") as stream:
        actual = mapped.mapped(stream, 8, whole.shape, whole.dtype)
    return actual.transpose(np.argsort(order)) if array.ndim else actual


@pytest.mark.parametrize("at_once", [1, 100, 4096, 1 << 22])
@pytest.mark.parametrize("name", ARRAYS)
def test_pieces(name: str, at_once: int, tmp_path: Path) -> None:
    array = ARRAYS[name]
    there = [array] if 0 in array.strides or not array.size else [array, in_a_file(array, tmp_path)]
    for each in there:
        actual = list(mapped.pieces(each, at_once))
        assert all(part.ndim == 1 and part.flags.c_contiguous for part in actual)
        assert all(part.nbytes <= max(at_once, array.itemsize) for part in actual)
        np.testing.assert_array_equal(np.concatenate(actual), array.ravel())
        assert mapped.equal(each, array)


@pytest.mark.parametrize("in_memory", [0, 1 << 30], ids=["in a file", "in memory"])
def test_what_is_kept(in_memory: int, tmp_path: Path) -> None:
    scratch = mapped.Scratch(in_memory)
    kept = {name: scratch.keep(array) for name, array in ARRAYS.items()}
    again = {name: scratch.keep(array) for name, array in kept.items()}
    scratch.let_go()
    for name, array in ARRAYS.items():
        assert kept[name].dtype == array.dtype
        np.testing.assert_array_equal(kept[name], array)
        assert again[name] is kept[name]
        assert mapped.is_scratch(kept[name]) == (not in_memory and array.nbytes >= mapped.LEAST)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept[name])), array)


def test_what_is_in_memory_counts_once() -> None:
    scratch = mapped.Scratch(3 << 20)
    half = scratch.keep_pieces([np.arange(1 << 19)], (1 << 10, 1 << 9), np.int32)
    for view in (half, half.reshape(-1).view(np.uint8), half[1:]):
        assert scratch.keep(view) is view
    last = scratch.keep(np.zeros(1 << 20, np.uint8))
    assert not mapped.is_scratch(last)
    assert mapped.is_scratch(scratch.keep(np.zeros(1 << 20, np.uint8)))


def test_what_is_kept_does_not_change_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as stream:
        array = mapped.mapped(stream, 0, (100,), np.uint8)
    store = BlobStore()
    offset = store.add("uint8", array)
    path.write_bytes(bytes(100))
    assert store.read(offset).data.tolist() == list(range(100))


def test_it_outlives_what_made_it() -> None:
    kept = mapped.Scratch(0).keep(np.arange(5000))
    np.testing.assert_array_equal(kept, np.arange(5000))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_the_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = mapped.Scratch(0).keep(np.arange(5000))
    assert mapped.is_scratch(kept)
    assert list(tmp_path.iterdir()) == []


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def test_many_arrays_hold_few_files_open() -> None:
    scratch = mapped.Scratch(0)
    before = _open_files()
    kept = [scratch.keep(np.full(10, index, np.float32)) for index in range(2000)]
    assert [int(each[0]) for each in kept] == list(range(2000))
    if before:
        assert _open_files() - before < 30


def full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    scratch = mapped.Scratch(0)
    with pytest.raises(ModelFileError, match=r"temporary file of 40,000 bytes .*No space.*TMPDIR"):
        scratch.keep(np.arange(5000))
    assert scratch.keep(np.arange(1)).tolist() == [0]


@pytest.mark.parametrize("in_memory", [0, 1 << 30], ids=["in a file", "in memory"])
def test_a_file_of_weights(in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are the same wherever the blobs were; so is what another process gets."""
    monkeypatch.setattr(mapped, "IN_MEMORY", in_memory)
    store = BlobStore()
    data = [RNG.integers(0, 255, size, np.uint8) for size in (1, 15, 16, 64, 1000, 50_000)]
    offsets = [store.add("uint8", each) for each in data]
    for number, each in enumerate((store, pickle.loads(pickle.dumps(store)))):
        path = tmp_path / f"{number}.bin"
        with path.open("wb") as stream:
            each.write(stream)
        file = BlobFile(path)
        for offset, expected in zip(offsets, data, strict=True):
            np.testing.assert_array_equal(file.read(offset).data, expected)
    assert (tmp_path / "0.bin").read_bytes() == (tmp_path / "1.bin").read_bytes()
