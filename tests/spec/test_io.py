"""Files are read whole or refused with a reason, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from mlferry import limits
from mlferry.errors import LimitError, ModelFileError
from mlferry.layers.builder import Builder
from mlferry.spec import io, weights
from mlferry.spec.proto import model_pb2

UNKNOWN, OTHER = 1998, 1999  # no fields of any message, nor layer kinds


def tag(number: int, payload: bytes) -> bytes:
    """A field of bytes in protobuf's wire format."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def a_model() -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 3, 4, 4))
    builder.layer("activation", "relu", ["x"], ["a"], ReLU={})
    builder.layer(
        "scale", "scale", ["a"], ["y"], shapeScale=[3, 1, 1], scale=[1.0, 2.0, 3.0]
    )  # fmt: skip
    builder.output("y", description="what comes out")
    spec = builder.model()
    spec.description.metadata.userDefined["key"] = "value"
    return spec


@pytest.fixture
def spec() -> model_pb2.Model:
    return a_model()


def test_round_trip(spec: model_pb2.Model, tmp_path: Path) -> None:
    path = io.save_spec(spec, tmp_path / "model.mlmodel")
    assert path == tmp_path / "model.mlmodel"
    again = io.load_spec(path)
    assert again == spec
    assert weights.read(again.neuralNetwork.layers[1].scale.scale, (3,)).tolist() == [1, 2, 3]
    assert io.load_spec(str(path)) == spec
    assert io.parse_spec(path.read_bytes()) == spec


def test_fields_of_newer_formats_survive(spec: model_pb2.Model, tmp_path: Path) -> None:
    extra = tag(UNKNOWN, b"something new")
    spec.neuralNetwork.layers[0].MergeFromString(extra)
    data = spec.SerializeToString() + tag(OTHER, b"something else")
    (tmp_path / "new.mlmodel").write_bytes(data)
    loaded = io.load_spec(tmp_path / "new.mlmodel")
    written = io.save_spec(loaded, tmp_path / "again.mlmodel").read_bytes()
    assert extra in written
    assert written.endswith(tag(OTHER, b"something else"))
    assert io.parse_spec(written) == loaded


DATA = a_model().SerializeToString()


def test_every_cut_gives_a_model_or_a_reason() -> None:
    refused = 0
    for length in range(len(DATA)):
        try:
            io.parse_spec(DATA[:length])
        except ModelFileError:
            refused += 1
    assert refused > len(DATA) * 0.9


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_random_bytes_give_a_model_or_a_reason(data: bytes) -> None:
    with contextlib.suppress(ModelFileError):
        assert io.parse_spec(data).specificationVersion


@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), max_size=5))
@settings(deadline=None, max_examples=300)
def test_damaged_files_give_a_model_or_a_reason(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for place, octet in changes:
        data[place] = octet
    with contextlib.suppress(ModelFileError):
        assert io.parse_spec(bytes(data)).specificationVersion


def unversioned(spec: model_pb2.Model) -> bytes:
    spec.specificationVersion = 0
    return spec.SerializeToString()


NO_MODELS = [
    ("empty", b"", "is empty"),
    ("cut", DATA[:50], "cut off, damaged"),
    ("text", b"This is not a model at all.\n", "not a Core ML model"),
    ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file; convert it: mlferry.convert"),
    ("zip", b"PK\x03\x04" + bytes(64), r"zip archive \(a .keras file\?\); convert it"),
    ("no version", unversioned(a_model()), "no specification version"),
    ("no kind", model_pb2.Model(specificationVersion=1).SerializeToString(), "no known kind"),
    ("unknown kind", b"\x08\x04" + tag(UNKNOWN, b""), "no known kind"),
]


@pytest.mark.parametrize(("name", "data", "text"), NO_MODELS, ids=[row[0] for row in NO_MODELS])
def test_other_files_are_refused(name: str, data: bytes, text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.mlmodel"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=text) as caught:
        io.load_spec(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot read .*nothing\.mlmodel: No such file"):
        io.load_spec(tmp_path / "nothing.mlmodel")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"is a folder without a Manifest\.json: give"):
        io.load_spec(tmp_path)


@pytest.mark.parametrize("name", ["model", Path("model")])
def test_missing_suffix_is_added(
    name: Any, spec: model_pb2.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert io.save_spec(spec, name) == Path("model.mlmodel")
    assert [path.name for path in tmp_path.iterdir()] == ["model.mlmodel"]


@pytest.mark.parametrize("name", ["model.h5", "model.mlpackage", "model.v2"])
def test_other_suffix_is_refused(name: str, spec: model_pb2.Model, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"the suffix must be \.mlmodel, not \.(h5|mlp|v2)"):
        io.save_spec(spec, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(spec: model_pb2.Model, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"cannot write into .*missing"):
        io.save_spec(spec, tmp_path / "missing" / "model.mlmodel")


def test_target_is_a_folder(spec: model_pb2.Model, tmp_path: Path) -> None:
    (tmp_path / "model.mlmodel" / "inside").mkdir(parents=True)
    with pytest.raises(ModelFileError, match="cannot write"):
        io.save_spec(spec, tmp_path / "model.mlmodel")
    assert [path.name for path in tmp_path.iterdir()] == ["model.mlmodel"]


@pytest.mark.parametrize("function", ["replace", "fsync", "fdopen"])
@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_old_file_stays_when_writing_fails(
    function: str,
    raised: BaseException,
    spec: model_pb2.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "model.mlmodel"
    path.write_bytes(b"old")

    def fail(*arguments: Any, **named: Any) -> None:
        if function == "fdopen":
            os.close(arguments[0])
        raise raised

    monkeypatch.setattr(os, function, fail)
    expected = ModelFileError if isinstance(raised, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        io.save_spec(spec, path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.mlmodel"]
    if expected is ModelFileError:
        assert "No space left" in str(caught.value)


def test_an_old_file_is_replaced(spec: model_pb2.Model, tmp_path: Path) -> None:
    path = tmp_path / "model.mlmodel"
    path.write_bytes(b"old" * 10000)
    io.save_spec(spec, path)
    assert io.load_spec(path) == spec
    assert [each.name for each in tmp_path.iterdir()] == ["model.mlmodel"]


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_others_may_read_the_file(spec: model_pb2.Model, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        path = io.save_spec(spec, tmp_path / "model.mlmodel")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_model_over_the_limit(
    spec: model_pb2.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MODEL_BYTES", 100)
    with pytest.raises(LimitError, match=r"allows 100 for a .*convert_to=.mlprogram"):
        io.save_spec(spec, tmp_path / "model.mlmodel")
    assert list(tmp_path.iterdir()) == []
