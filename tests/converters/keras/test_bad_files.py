"""Files that are damaged, hostile, or something else: one of our errors, and nothing written."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError, MlferryError, ModelFileError

DENSE = {"class_name": "Dense", "config": {"name": "d", "units": 2, "activation": "linear"}}
INPUT = {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 3]}}


def write_h5(path: Path, layers: list[dict[str, Any]], **weights: list[np.ndarray]) -> Path:
    """A Keras 2 file written without Keras."""
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["backend"] = "tensorflow"
        group = file.create_group("model_weights")
        for name, arrays in weights.items():
            names = [f"{name}/{index}:0" for index in range(len(arrays))]
            inner = group.create_group(name)
            inner.attrs["weight_names"] = names
            for label, array in zip(names, arrays, strict=True):
                inner[label] = array
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    weights = [np.ones((3, 2), np.float32), np.zeros(2, np.float32)]
    return write_h5(tmp_path / "good.h5", [INPUT, DENSE], d=weights)


def test_the_good_one_converts(good: Path) -> None:
    actual = mlferry.convert(good).predict({"x": np.ones((1, 3))})
    np.testing.assert_array_equal(actual["d"], [[3, 3]])


def test_every_truncation(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    cut = tmp_path / "cut.h5"
    for size in sorted({*range(0, 64), *range(64, len(data), 97)}):
        cut.write_bytes(data[:size])
        with pytest.raises(ModelFileError):
            mlferry.convert(cut)


def _edit(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def _config(file: h5py.File, text: str) -> None:
    file.attrs["model_config"] = text


BROKEN: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "no config": (lambda f: f.attrs.__delitem__("model_config"), "not a Keras model"),
    "no JSON": (lambda f: _config(f, "{"), "not valid JSON"),
    "deep JSON": (
        lambda f: _config(f, "[" * 10**5),
        "not valid JSON|does not describe a Keras model",
    ),
    "a list": (lambda f: _config(f, "[]"), "does not describe a Keras model"),
    "no layers": (
        lambda f: _config(f, '{"class_name": "Sequential", "config": {}}'),
        "not a Sequential or functional model",
    ),
    "layers of text": (
        lambda f: _config(f, '{"class_name": "Sequential", "config": {"layers": ["a"]}}'),
        "cannot be read",
    ),
    "a subclassed model": (
        lambda f: _config(f, '{"class_name": "MyModel", "config": {"units": 3}}'),
        "not a Sequential or functional model",
    ),
    "missing array": (lambda f: f["model_weights/d/d"].__delitem__("1:0"), "does not hold it"),
    "no weights": (lambda f: f["model_weights"].__delitem__("d"), "asks for 2 arrays"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, good: Path) -> None:
    change, message = BROKEN[name]
    _edit(good, change)
    with pytest.raises(ModelFileError, match=message):
        mlferry.convert(good)


SHAPES = [
    ([np.ones((3, 4)), np.zeros(2)], "asks for any x 2"),
    ([np.ones((3, 2)), np.zeros(3)], "asks for 2"),
    ([np.ones((5, 2)), np.zeros(2)], "has 3 channels, the layer takes 5"),
    ([np.ones((3, 2))], "asks for 2 arrays"),
    ([np.ones(6), np.zeros(2)], "asks for any x 2"),
]


@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_weights_that_do_not_fit(index: int, tmp_path: Path) -> None:
    arrays, message = SHAPES[index]
    path = write_h5(tmp_path / "m.h5", [INPUT, DENSE], d=arrays)
    with pytest.raises(MlferryError, match=message):
        mlferry.convert(path)


def test_an_option_that_is_not_carried_over(tmp_path: Path) -> None:
    weights = [np.ones((3, 2), np.float32), np.zeros(2, np.float32)]
    config = {**DENSE["config"], "sharpen": 3}
    path = write_h5(tmp_path / "m.h5", [INPUT, {**DENSE, "config": config}], d=weights)
    with pytest.raises(ConversionError, match=r"cannot carry over: sharpen=3"):
        mlferry.convert(path)


def test_a_cycle_and_a_missing_layer(tmp_path: Path) -> None:
    def functional(inbound: list[Any]) -> str:
        layers = [
            {**INPUT, "name": "x", "inbound_nodes": []},
            {
                "class_name": "Add",
                "name": "a",
                "config": {"name": "a"},
                "inbound_nodes": [inbound],
            },
        ]
        config = {"layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["a", 0, 0]]}
        return json.dumps({"class_name": "Model", "config": config})

    path = write_h5(tmp_path / "m.h5", [INPUT])
    _edit(path, lambda f: _config(f, functional([["x", 0, 0, {}], ["a", 0, 0, {}]])))
    with pytest.raises(ModelFileError, match="depends on itself"):
        mlferry.convert(path)
    _edit(path, lambda f: _config(f, functional([["x", 0, 0, {}], ["b", 0, 0, {}]])))
    with pytest.raises(ModelFileError, match="which does not exist"):
        mlferry.convert(path)


# ---- zip archives ----------------------------------------------------------------------


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def archive(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "."), content)
    return buffer.getvalue()


CONFIG = json.dumps({"class_name": "Sequential", "config": {"layers": [INPUT, DENSE]}}).encode()


def test_a_pickle_inside_is_never_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    evil = pickle.dumps(Bomb(mark))
    for name, members in {
        "only": {"data__pkl": evil},
        "as weights": {"config__json": CONFIG, "model__weights__h5": evil},
        "as config": {"config__json": evil, "model__weights__h5": b""},
    }.items():
        path = tmp_path / f"{name}.keras"
        path.write_bytes(archive(**members))
        with pytest.raises(ModelFileError):
            mlferry.convert(path)
    assert not mark.exists()


def test_truncated_archives(tmp_path: Path) -> None:
    data = archive(config__json=CONFIG, model__weights__h5=b"\x89HDF\r\n\x1a\n")
    path = tmp_path / "m.keras"
    for size in range(4, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(ModelFileError):
            mlferry.convert(path)


def test_what_is_no_keras_file(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    for content in (b"", b"hello", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            mlferry.convert(path)
    with pytest.raises(ModelFileError, match="cannot read"):
        mlferry.convert(tmp_path / "missing.h5")


def test_nothing_is_written_when_a_conversion_fails(good: Path, tmp_path: Path) -> None:
    from mlferry.cli import main

    _edit(good, lambda f: _config(f, "{"))
    target = tmp_path / "out.mlmodel"
    assert main(["convert", str(good), str(target)]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.h5"]


@pytest.mark.parametrize(
    "config",
    [
        {"units": "two"}, {"units": None}, {"units": -1}, {"units": [2]}, {"use_bias": "maybe"},
        {"activation": 5}, {"activation": {"class_name": None}}, {"activation": ["relu"]},
        {"units": 10**30},
    ],
)  # fmt: skip
def test_options_of_the_wrong_kind(config: dict[str, Any], tmp_path: Path) -> None:
    weights = [np.ones((3, 2), np.float32), np.zeros(2, np.float32)]
    layer = {**DENSE, "config": {**DENSE["config"], **config}}
    path = write_h5(tmp_path / "m.h5", [INPUT, layer], d=weights)
    try:
        mlferry.convert(path)
    except MlferryError:
        return
    assert config == {"use_bias": "maybe"}  # true is true


def test_layers_without_their_options(tmp_path: Path) -> None:
    for kind in ("Conv2D", "Dense", "Embedding", "Reshape", "RepeatVector", "Dot", "Rescaling"):
        layer = {"class_name": kind, "config": {"name": "d"}}
        path = write_h5(tmp_path / "m.h5", [INPUT, layer])
        with pytest.raises(MlferryError):
            mlferry.convert(path)
