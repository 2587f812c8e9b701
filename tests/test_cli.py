"""The `mlferry` command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlferry.cli import main
from mlferry.spec import features
from mlferry.spec.builder import Builder
from mlferry.spec.io import save_spec

EXAMPLE = Path(__file__).parent.parent / "examples" / "spatial_transformer"

HOOKS = """
import mlferry

def convert_sampler(node):
    size = {"output_height": node.output_height, "output_width": node.output_width}
    return mlferry.CustomLayerParams("GridSampler", "samples at a grid", size)

custom_conversion_functions = {"GridSampler": convert_sampler}
"""


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
    builder.output("y")
    return save_spec(builder.model(), tmp_path / "relu.mlmodel")


def test_convert_inspect_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks, model = tmp_path / "hooks.py", tmp_path / "stn.mlmodel"
    hooks.write_text(HOOKS)
    assert (
        main(["convert", str(EXAMPLE / "digits_stn.h5"), str(model), "--custom", str(hooks)]) == 0
    )
    assert "custom layer GridSampler" in capsys.readouterr().out
    assert main(["inspect", str(model)]) == 0
    assert "samples at a grid" in capsys.readouterr().out
    held = np.load(EXAMPLE / "digits_test.npz")
    np.save(tmp_path / "digit.npy", held["x"][:1].astype(np.float32) / 255)
    given = f"image={tmp_path / 'digit.npy'}"
    layers = str(EXAMPLE / "grid_sampler.py")
    assert main(["predict", str(model), given, "--custom", layers]) == 0
    made = json.loads(capsys.readouterr().out)["digit"]
    np.testing.assert_allclose(made, held["predictions"][:1], atol=1e-5)
    out = tmp_path / "out.npz"
    assert main(["predict", str(model), given, "--custom", layers, "--out", str(out)]) == 0
    np.testing.assert_allclose(np.load(out)["digit"], held["predictions"][:1], atol=1e-5)


def test_quantize_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    builder = Builder()
    builder.input("x", (1, 3, 8, 8), features.image(8, 8, "RGB"))
    weights = rng.normal(size=(16, 192)).astype(np.float32)
    builder.layer("innerProduct", "ip", ["x"], ["y"], inputChannels=192, outputChannels=16,
                  weights=weights)  # fmt: skip
    builder.output("y")
    model = save_spec(builder.model(), tmp_path / "net.mlmodel")
    small = tmp_path / "small.mlmodel"
    assert main(["quantize", str(model), "-o", str(small), "--bits", "8"]) == 0
    assert "linear 8" in capsys.readouterr().out
    assert small.stat().st_size < model.stat().st_size / 2
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        pixels = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
        image.fromarray(pixels).save(folder / f"{index}.png")
    assert main(["compare", str(model), str(small), str(folder)]) == 0
    assert "y" in capsys.readouterr().out
    assert main(["compare", str(model), str(small), str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 3
    assert main(["quantize", str(model), "-o", str(small), "--bits", "9"]) == 1


def test_errors_are_paragraphs(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        ["inspect", str(tmp_path / "missing.mlmodel")],
        ["predict", str(relu), "x"],
        ["predict", str(relu), f"x={tmp_path / 'missing.npy'}"],
        ["convert", str(relu), str(tmp_path / "out.mlmodel")],
        ["convert", str(relu), str(tmp_path / "out.mlmodel"), "--custom", "missing.py"],
    ]
    for command in commands:
        assert main(command) == 1
        text = capsys.readouterr().err
        assert text.startswith("mlferry: ")
        assert "Traceback" not in text


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        main(["--debug", "inspect", str(tmp_path / "missing.mlmodel")])


def test_wrong_usage_exits_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["translate"])
    assert caught.value.code == 2
