"""Image outputs of `predict`: images of Pillow, or arrays, the same by every way to them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.errors import RegistrationError
from mlferry.layers.builder import Builder
from mlferry.models import utils
from mlferry.runtime import pictures
from mlferry.spec import features

Image = pytest.importorskip("PIL.Image")

MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint8)


def spec_of(layout: str, source: str = "x", result: str = "y", **options: Any) -> Any:
    """255 minus an image."""
    channels = features.CHANNELS[layout]
    builder = Builder()
    builder.input(source, (1, channels, 2, 3), features.image(3, 2, layout))
    layer = {"type": "POWER", "alpha": 1.0, "scale": -1.0, "shift": 255.0}
    builder.layer("unary", "negative", [source], [result], **layer)
    builder.output(result, features.image(3, 2, layout))
    return builder.model()


def sample(layout: str) -> Any:
    if layout == "GRAYSCALE_FLOAT16":
        return Image.fromarray(PIXELS[..., 0].astype(np.float32) + 0.5)
    return PIXELS if features.CHANNELS[layout] == 3 else PIXELS[..., 0]


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("layout", MODES)
def test_pictures_and_arrays(layout: str, engine: str) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    x = sample(layout)
    expected = 255 - np.asarray(x).astype(np.float32)
    picture = mlferry.MLModel(spec_of(layout), engine=engine).predict({"x": x})["y"]
    array = mlferry.MLModel(spec_of(layout), engine=engine, images="array").predict({"x": x})["y"]
    assert isinstance(picture, Image.Image)
    assert picture.mode == MODES[layout]
    assert picture.size == (3, 2)
    assert isinstance(array, np.ndarray)
    for result in (picture, array):
        np.testing.assert_array_equal(np.asarray(result), expected)


def through_pipeline(model: mlferry.MLModel) -> mlferry.MLModel:
    """Negative twice: what one model makes the other takes."""
    second = mlferry.MLModel(spec_of("BGR", "y", "z"))
    return utils.make_pipeline(model, second)


WAYS: dict[str, Callable[[mlferry.MLModel], Any]] = {
    "a dict": lambda m: [m.predict({"x": PIXELS})["y"]],
    "a list": lambda m: [made["y"] for made in m.predict([{"x": PIXELS}] * 2)],
    "an iterator": lambda m: [made["y"] for made in m.predict(iter([{"x": PIXELS}] * 2))],
    "an executor": lambda m: [
        made["y"] for made in m.predict([{"x": PIXELS}] * 2, executor=ThreadPoolExecutor(2))
    ],
    "a pickled model": lambda m: [pickle.loads(pickle.dumps(m)).predict({"x": PIXELS})["y"]],
    "another message": lambda m: [m.with_spec(m.spec).predict({"x": PIXELS})["y"]],
    "a pipeline": lambda m: [
        Image.fromarray(255 - np.asarray(made)) if isinstance(made, Image.Image) else 255 - made
        for made in [through_pipeline(m).predict({"x": PIXELS})["z"]]
    ],
}


@pytest.mark.parametrize("images", ["pil", "array"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_predict(way: str, images: str) -> None:
    actual = WAYS[way](mlferry.MLModel(spec_of("BGR"), images=images))
    kind = Image.Image if images == "pil" else np.ndarray
    for result in actual:
        assert isinstance(result, kind)
        np.testing.assert_array_equal(np.asarray(result), 255 - PIXELS)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (actual,) = mlferry.MLModel(spec_of("RGB")).predict(tmp_path)
    buffer = io.BytesIO()
    actual["y"].save(buffer, "PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(buffer)), 255 - PIXELS)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_pillow", lambda: None)
    actual = mlferry.MLModel(spec_of("RGB")).predict({"x": PIXELS})["y"]
    assert isinstance(actual, np.ndarray)
    np.testing.assert_array_equal(actual, 255 - PIXELS)


def test_no_such_kind() -> None:
    with pytest.raises(RegistrationError, match="images='numpy': 'pil' and 'array' are possible"):
        mlferry.MLModel(spec_of("RGB"), images="numpy")


def test_the_tools_that_read_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Models with image outputs compare, and the shell writes their pixels."""
    model = mlferry.MLModel(spec_of("RGB"))
    report = mlferry.compare_models(model, mlferry.MLModel(spec_of("RGB")), [{"x": PIXELS}] * 2)
    assert report.outputs["y"].numbers["largest_difference"] == 0
    assert utils.evaluate_transformer(model, [{"x": PIXELS}], [{"y": 255 - PIXELS}]) == {
        "num_samples": 1, "num_errors": 0,
    }  # fmt: skip
    model.save(tmp_path / "m.mlmodel")
    np.save(tmp_path / "x.npy", PIXELS)
    arguments = ["predict", str(tmp_path / "m.mlmodel"), f"x={tmp_path / 'x.npy'}"]
    assert main(arguments) == 0
    np.testing.assert_array_equal(json.loads(capsys.readouterr().out)["y"], 255 - PIXELS)
