"""Files that were made to harm: nothing is executed, nothing else is read, and memory stays."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mlferry
from mlferry.converters import isolated
from mlferry.converters.keras import hdf5
from mlferry.errors import LimitError, MlferryError, ModelFileError
from tests.converters.keras.test_bad_files import CONFIG, DENSE, INPUT, archive, write_h5


@pytest.fixture
def good(tmp_path: Path) -> Path:
    weights = [np.ones((3, 2), np.float32), np.zeros(2, np.float32)]
    return write_h5(tmp_path / "good.h5", [INPUT, DENSE], d=weights)


# ---- HDF5 --------------------------------------------------------------------------------------

KERNEL = "model_weights/d/d/0:0"


def replaced(file: h5py.File, **options: Any) -> None:
    """The kernel as another kind of array."""
    del file[KERNEL]
    file.create_dataset(KERNEL, **options)


def external_array(file: h5py.File) -> None:
    replaced(file, shape=(3, 2), dtype="f4", external=[("/etc/hostname", 0, 24)])


def virtual_array(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (3, 2))
    file.create_virtual_dataset(KERNEL, layout)


def external_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/hostname", "/x")


def soft_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/model_weights/d/d/1:0")


def cycle(file: h5py.File) -> None:
    file["model_weights/d/again"] = file["model_weights"]


def diamonds(file: h5py.File) -> None:
    """2 ** 40 paths through 40 groups."""
    above = file.create_group("model_weights/diamonds")
    for _ in range(40):
        below = above.create_group("a")
        above["b"] = below
        above = below


def deep_groups(file: h5py.File) -> None:
    file.create_group("model_weights/" + "/".join("g" * 200))


HDF5: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "an array in another file": (external_array, r"0:0 is kept in another file"),
    "an array out of other files": (virtual_array, r"0:0 is composed of other files"),
    "an external link": (external_link, r"0:0 is a link to elsewhere"),
    "a soft link": (soft_link, r"0:0 is a link to elsewhere"),
    "a group inside itself": (cycle, r"/model_weights/d/again lies inside itself"),
    "many paths": (diamonds, r"changed\((objects|seconds)="),
    "deep groups": (deep_groups, r"the limit is 50.*changed\(depth=64\)"),
    "a giant array": (
        lambda f: replaced(f, shape=(1 << 40, 4), dtype="f4", chunks=(1024, 4)),
        r"its arrays take bytes: 17,592,186,044,424; the limit is 8,589,934,592.*weights=",
    ),
    "a compressed bomb": (
        lambda f: replaced(f, shape=(1 << 29,), dtype="f4", chunks=(1 << 20,), compression=9),
        r"its compressed arrays take 2,147,483,6.. bytes, [\d,]+ times the size.*always=",
    ),
    "a giant chunk": (
        lambda f: replaced(f, shape=(1 << 26,), dtype="f4", chunks=(1 << 26,), fillvalue=1),
        r"asks for any x 2",
    ),
    "texts in the place of an array": (
        lambda f: replaced(f, data=["a", "b"]),
        r"lists an array 'd/0:0' and does not hold it",
    ),
    "an array in the place of a group": (
        lambda f: (f.__delitem__("model_weights/d"), f.update({"model_weights/d": [1.0]})),
        r"an array 'd' where a group should be",
    ),
    "an empty array": (
        lambda f: replaced(f, dtype="f4", data=h5py.Empty("f4")),
        r"lists an array 'd/0:0' and does not hold it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HDF5)
def test_hostile_hdf5(name: str, good: Path) -> None:
    change, message = HDF5[name]
    with h5py.File(good, "r+") as file:
        change(file)
    start = time.monotonic()
    with pytest.raises(MlferryError, match=message):
        mlferry.convert(good)
    assert time.monotonic() - start < 30


def test_other_ways_to_lie_in_a_file(good: Path) -> None:
    """Compressed, chunked, of another byte order, converted, compact: the same numbers."""
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    compact.set_layout(h5py.h5d.COMPACT)
    ways: dict[str, dict[str, Any]] = {
        "compressed": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "chunked": {"chunks": (2, 1)},
        "big-endian": {"dtype": ">f4"},
        "double": {"dtype": "f8"},
        "half": {"dtype": "f2"},
        "small": {"dtype": "i1"},
    }
    for name, options in ways.items():
        with h5py.File(good, "r+") as file:
            replaced(file, data=values, **options)
        np.testing.assert_array_equal(
            mlferry.convert(good).predict({"x": np.ones((1, 3))})["d"], [[6, 9]], err_msg=name
        )


def test_a_user_block_before_the_file(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "block.h5"
    with h5py.File(path, "w", userblock_size=512) as file, h5py.File(good) as source:
        source.copy("model_weights", file)
        file.attrs.update(source.attrs)
    with hdf5.opened(path) as group:
        np.testing.assert_array_equal(group["model_weights/d/d/0:0"].read(), np.ones((3, 2)))


CRASHES: dict[str, tuple[str, str]] = {
    "a crash": ("os.kill(os.getpid(), 11)", r"the HDF5 library crashed.*exit -11"),
    "an end": ("os._exit(3)", r"the HDF5 library crashed.*exit 3"),
    "an exception": ("raise OSError('odd')", r"damaged or cut off: odd"),
    "no end": ("while True: pass", r"more than 1 seconds.*changed\(seconds=600\)"),
    "sleep": ("time.sleep(60)", r"more than 0 seconds of processor time"),
    "memory": ("bytearray(1 << 40)", r"bytes of memory.*changed\(reader_memory="),
    "rubbish": ("print('{', flush=True)", r"crashed on it \(exit"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRASHES)
def test_what_the_reading_process_may_do(
    name: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement, message = CRASHES[name]
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, time\nEACH_APART = True\ndef load(): pass\n"
        f"def answer(told):\n    {statement}\n    return []\n"
        'CALLS = {"answer": answer}\n', encoding="utf-8",
    )  # fmt: skip
    worker = isolated.Worker(str(script), "the HDF5 library")
    monkeypatch.setattr(hdf5, "_WORKER", worker)
    start = time.monotonic()
    with mlferry.limits.changed(seconds=0.1 if name == "sleep" else 1), \
            pytest.raises(MlferryError, match=message):  # fmt: skip
        mlferry.convert(good)
    assert time.monotonic() - start < 15


def test_one_file_after_another(good: Path, tmp_path: Path) -> None:
    """One process serves them, and a damaged one does not end it."""
    mlferry.convert(good)
    process = hdf5._WORKER._process
    assert process is not None
    bad = tmp_path / "bad.h5"
    bad.write_bytes(good.read_bytes()[:700])
    with pytest.raises(ModelFileError):
        mlferry.convert(bad)
    mlferry.convert(good)
    assert hdf5._WORKER._process is process
    process.kill()
    process.wait()
    mlferry.convert(good)  # by another one
    assert hdf5._WORKER._process is not process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_a_file_is_read(good: Path) -> None:
    """The child reads by a process of its own, though the parent's is busy."""
    mlferry.convert(good)
    with hdf5._WORKER._lock:
        child = os.fork()
        if child == 0:
            status = 1
            signal.alarm(60)  # it would wait for ever
            try:
                mlferry.convert(good)
                status = 0
            finally:
                hdf5._WORKER._stop()
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_reading_in_this_process(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated.sys, "executable", "")
    monkeypatch.setattr(hdf5, "_WORKER", isolated.Worker(hdf5.hdf5_worker.__file__, "HDF5"))
    with pytest.raises(ModelFileError, match=r"no Python interpreter.*isolated=False"):
        mlferry.convert(good)
    with mlferry.limits.changed(isolated=False):
        actual = mlferry.convert(good).predict({"x": np.ones((1, 3))})
    np.testing.assert_array_equal(actual["d"], [[3, 3]])


# ---- .keras ------------------------------------------------------------------------------------


def keras_archive(path: Path, good: Path, **more: bytes) -> Path:
    members = {"config__json": CONFIG, "model__weights__h5": good.read_bytes(), **more}
    path.write_bytes(archive(**members))
    return path


def test_a_zip_bomb(tmp_path: Path, good: Path) -> None:
    path = tmp_path / "bomb.keras"
    path.write_bytes(archive(config__json=b" " * (33 << 20), model__weights__h5=b""))
    with pytest.raises(LimitError, match=r"config.json has bytes: 34,603,008.*config=64 << 20"):
        mlferry.convert(path)
    with mlferry.limits.changed(always=1 << 20):
        path.write_bytes(archive(config__json=CONFIG, model__weights__h5=bytes(2 << 20)))
        with pytest.raises(LimitError, match=r"model.weights.h5 has 2,097,152 bytes, .*always="):
            mlferry.convert(path)


def test_a_member_that_lies_about_its_size(tmp_path: Path, good: Path) -> None:
    path = keras_archive(tmp_path / "lie.keras", good)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"model.weights.h5"))
    for size in (1, 1 << 31):
        struct.pack_into("<I", data, entry + 24, size)
        path.write_bytes(data)
        with pytest.raises(MlferryError):
            mlferry.convert(path)


def test_names_of_members(tmp_path: Path, good: Path) -> None:
    for name in ("/etc/passwd", "../../escaped", "a/../../b"):
        path = keras_archive(tmp_path / "m.keras", good, **{name: b"x"})
        with pytest.raises(ModelFileError, match="a name outside of its folder"):
            mlferry.convert(path)
    path = keras_archive(tmp_path / "twice.keras", good)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", CONFIG)
    with pytest.raises(ModelFileError, match=r"holds config.json 2 times"):
        mlferry.convert(path)


# ---- configs -----------------------------------------------------------------------------------


def nested(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = {"class_name": "Sequential", "config": {"layers": [INPUT, DENSE]}}
    for _ in range(depth):
        config = {"class_name": "Sequential", "config": {"layers": [config]}}
    return config


@pytest.mark.parametrize("depth", [60, 400, 5000])
def test_models_in_models(depth: int, good: Path) -> None:
    text = '{"class_name": "Sequential", "config": {"layers": [' * depth
    text += json.dumps(nested(0)) + "]}}" * depth
    with h5py.File(good, "r+") as file:
        file.attrs["model_config"] = text
    with pytest.raises(MlferryError, match=r"changed\(depth=|recursion"):
        mlferry.convert(good)


@pytest.mark.parametrize("name", ["\\ud83d", "\\udc00x", "\\ud83d\\ud83d", "\\ud83d\\ude00"])
def test_half_a_character(name: str, good: Path) -> None:
    """A surrogate alone is no text that a model can hold; a pair is a character."""
    with h5py.File(good, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        text = json.dumps(config).replace('"name": "d"', f'"name": "{name}"', 1)
        file.attrs["model_config"] = text
        file.attrs["keras_version"] = np.bytes_(b"3.\xed\xa0")
    if name == "\\ud83d\\ude00":  # the weights have another name
        with pytest.raises(MlferryError, match="\U0001f600"):
            mlferry.convert(good)
    else:
        with pytest.raises(ModelFileError, match=r"not valid JSON.*surrogates"):
            mlferry.convert(good)


@pytest.mark.parametrize(
    ("name", "options"),
    [("Conv2DTranspose", {"filters": 2, "kernel_size": 2, "dilation_rate": [1 << 31, 1]}),
     ("UpSampling2D", {"size": [1 << 31, 1], "interpolation": "bicubic"})],
)  # fmt: skip
def test_giant_options(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Arrays of a conversion are counted before they are made."""
    image = {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 6, 6, 3]}}
    layer = {"class_name": name, "config": {"name": "d", **options}}
    weights = [np.ones((2, 2, 2, 3), np.float32), np.zeros(2, np.float32)]
    path = write_h5(tmp_path / "m.h5", [image, layer], d=weights if "filters" in options else [])
    with pytest.raises(LimitError, match="constants="):
        mlferry.convert(path)


def test_code_in_a_lambda_is_never_run(tmp_path: Path) -> None:
    import base64
    import marshal

    mark = tmp_path / "ran"
    code = compile(f"open({str(mark)!r}, 'w')", "x", "eval")
    function = [base64.b64encode(marshal.dumps(code)).decode(), None, None]
    layer = {"class_name": "Lambda", "config": {
        "name": "d", "function": function, "function_type": "lambda"}}  # fmt: skip
    path = write_h5(tmp_path / "m.h5", [INPUT, layer])
    with pytest.raises(MlferryError, match="Lambda"):
        mlferry.convert(path)
    assert not mark.exists()


def test_a_file_on_which_the_library_never_ends() -> None:
    from tests.fuzz.run import FAULTS

    with mlferry.limits.changed(seconds=0.5), pytest.raises(LimitError, match="seconds=600"):
        mlferry.convert(FAULTS / "keras_h5.no_end.bin")
