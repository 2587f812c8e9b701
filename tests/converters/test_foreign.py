"""Sources of frameworks that mlferry does not read: the error says what to do instead."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

import mlferry
from mlferry.cli import main
from mlferry.errors import ConversionError, ModelFileError


def torch_archive() -> bytes:
    """As torch.save writes it: a zip archive with a pickle, which is never read."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", b"cos\nsystem\n(S'touch made'\ntR.")
    return stream.getvalue()


FILES = {
    "model.pt": (torch_archive(), "torch.onnx.export"),
    "model.pth": (b"\x80\x02}q\x00.", "torch.onnx.export"),
    "MODEL.PT2": (torch_archive(), "torch.onnx.export"),
    "model.tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(24), "TensorFlow Lite"),
    "model.safetensors": (b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", "weights alone"),
    "model.ckpt": (b"\x00" * 40, "weights alone"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    content, text = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=text) as raised:
        mlferry.convert(path)
    assert str(path) in str(raised.value)


def test_a_compiled_model(tmp_path: Path) -> None:
    folder = tmp_path / "model.mlmodelc"
    folder.mkdir()
    with pytest.raises(ConversionError, match="a compiled Core ML model: use"):
        mlferry.convert(folder)


@pytest.mark.parametrize(
    ("module", "text"),
    [("torch.nn.modules.module", "torch.onnx.export"), ("jax.numpy", "jax2tf"),
     ("coremltools.models.model", "a Core ML model already"), ("elsewhere", "cannot tell what")],
)  # fmt: skip
def test_objects(module: str, text: str) -> None:
    """Of a class that derives from one of the framework; nothing is imported to see it."""
    base = type("Module", (), {"__module__": module})
    with pytest.raises(ConversionError, match=text):
        mlferry.convert(type("Mine", (base,), {})())


def test_the_content_decides(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(mlferry.examples.path("digits.onnx").read_bytes())
    assert mlferry.convert(path).get_spec().WhichOneof("Type") == "neuralNetwork"


def test_a_picture_is_no_model() -> None:
    with pytest.raises(ModelFileError, match="neither an ONNX nor a TensorFlow model, nor one of"):
        mlferry.convert(mlferry.examples.path("digit.png"))


def test_a_picture_for_an_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the option; with it, the command works."""
    model, picture = tmp_path / "m.mlmodel", str(mlferry.examples.path("digit.png"))
    source = str(mlferry.examples.path("digits.onnx"))
    assert main(["convert", source, str(model)]) == 0
    assert main(["predict", str(model), picture]) == 1
    assert "convert the model with --image image" in capsys.readouterr().err
    assert main(["convert", source, str(model), "--image", "image"]) == 0
    assert main(["predict", str(model), picture]) == 0
