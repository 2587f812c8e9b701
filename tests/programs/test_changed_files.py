"""Files of weights that change while they are in use: an error of ours, never a dead process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import mlferry
from mlferry.converters import convert
from mlferry.errors import MlferryError, ModelFileError
from mlferry.layers.builder import Builder

X = np.ones((1, 512), np.float32)
Array = np.ndarray[Any, Any]


def saved(folder: Path, factor: float = 1.0) -> Path:
    """A program whose weights take 1 MB."""
    builder = Builder()
    builder.input("x", (1, 512))
    weights = np.arange(512 * 1024, dtype=np.float32).reshape(1024, 512) % 7 * factor
    builder.layer("innerProduct", "d", ["x"], ["y"], inputChannels=512, outputChannels=1024,
                  weights=weights)  # fmt: skip
    builder.output("y")
    return mlferry.to_program(mlferry.MLModel(builder.model())).save(folder / "m.mlpackage")


def weights_of(package: Path) -> Path:
    (path,) = package.rglob("weight.bin")
    return path


def cut_off(path: Path) -> None:
    os.truncate(path, 100)


def written_over(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(size - 4)
        stream.write(b"abcd")
    os.utime(path, ns=(1, 1))  # a clock may be too coarse to see it


def longer(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [cut_off, written_over, longer])
@pytest.mark.parametrize("when", ["before the first prediction", "after it"])
def test_predicting(change: Callable[[Path], None], when: str, tmp_path: Path) -> None:
    package = saved(tmp_path)
    model = mlferry.MLModel(package)
    if when == "after it":
        model.predict({"x": X})
    change(weights_of(package))
    with pytest.raises(ModelFileError, match="was changed while it was in use: load it again"):
        model.predict({"x": X})


@pytest.mark.parametrize(
    "use",
    [lambda model, place: model.save(place / "other.mlpackage"),
     lambda model, place: mlferry.quantize_weights(model, 8),
     lambda model, place: mlferry.compare_models(model, model, [{"x": X}]),
     lambda model, place: mlferry.export_onnx(model, place / "m.onnx")],
    ids=["save", "quantize", "compare", "export"],
)  # fmt: skip
def test_other_uses(use: Callable[[mlferry.MLModel, Path], object], tmp_path: Path) -> None:
    package = saved(tmp_path)
    model = mlferry.MLModel(package)
    cut_off(weights_of(package))
    with pytest.raises(MlferryError, match="was changed while it was in use"):
        use(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.mlpackage"]


def test_another_model_in_its_place(tmp_path: Path) -> None:
    """Saving over a model, or deleting it, does not change what is open."""
    package = saved(tmp_path)
    model = mlferry.MLModel(package)
    (before,) = model.predict({"x": X}).values()
    saved(tmp_path, 2.0)
    again = mlferry.MLModel(package)
    np.testing.assert_array_equal(model.predict({"x": X})["y"], before)
    np.testing.assert_allclose(again.predict({"x": X})["y"], 2 * before, rtol=1e-3)
    shutil.rmtree(package)
    np.testing.assert_allclose(again.predict({"x": X})["y"], 2 * before, rtol=1e-3)


@pytest.mark.parametrize("target", ["neuralnetwork", "mlprogram"])
def test_external_data_while_converting(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is cut off when the graph has been read, and its arrays are mapped."""
    weights = np.ones((1024, 512), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, [2, 1024])],
        [helper.make_tensor_value_info("y", 1, [2, 512])], [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(network, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin")
    lower = convert.lower

    def cut(*arguments: Any, **options: Any) -> Any:
        cut_off(tmp_path / "w.bin")
        return lower(*arguments, **options)

    monkeypatch.setattr(convert, "lower", cut)
    with pytest.raises(ModelFileError, match="was changed while it was in use"):
        mlferry.convert(tmp_path / "m.onnx", convert_to=target)
