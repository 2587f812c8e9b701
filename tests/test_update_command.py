"""`mlferry update`: in a folder of arrays, a model out, and the curve of its loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.models.curve import curve_picture, curve_text
from tests.models.test_updating import PAIRS, small, weights_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "samples"
    folder.mkdir()
    for index, pair in enumerate(PAIRS):
        np.savez(folder / f"{index:02}.npz", **pair)  # type: ignore[arg-type]
    return small().save(tmp_path / "m.mlmodel"), folder


def test_update(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = files
    out, curve = model.with_name("out.mlmodel"), model.with_name("loss.png")
    command = ["update", str(model), str(folder), "-o", str(out), "--epochs", "5"]
    command += ["--set", "learningRate=0.1", "--set", "seed=3"]
    assert main([*command, "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert len(fields["losses"]) == 5
    expected = small().update(PAIRS, 5, {"learningRate": 0.1, "seed": 3})
    assert weights_of(mlferry.MLModel(out)) == weights_of(expected)
    pytest.importorskip("matplotlib")
    assert main([*command, "--curve", str(curve)]) == 0
    text = capsys.readouterr().out
    assert "the loss of 5 epochs" in text
    assert "epoch 1" in text
    assert curve.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "rate=1"], "no parameter 'rate'"),
        (["--epochs", "0"], "epochs is 0; it is positive"),
        (["--curve", "loss.gif"], "drawn as a .png"),
    ],
)
def test_what_does_not_fit(
    files: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    model, folder = files
    out = model.with_name("out.mlmodel")
    assert main(["update", str(model), str(folder), "-o", str(out), *options]) == 1
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("setting", "message"),
    [("learningRate", "written NAME=VALUE"), ("learningRate=fast", "parameters are numbers")],
)
def test_wrong_usage(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    model, folder = files
    with pytest.raises(SystemExit) as caught:
        main(["update", str(model), str(folder), "-o", "out.mlmodel", "--set", setting])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("losses", "columns"), [([1.0], 1), ([0.0, 0.0], 2), ([4.0, 2.0, 0.0], 3), ([1.0] * 200, 60)]
)
def test_the_curve_as_text(losses: list[float], columns: int) -> None:
    *rows, axis = curve_text(losses, height=2).splitlines()
    assert len(rows) == 2
    assert axis.endswith(str(len(losses)))
    filled = max(len(row.partition("|")[2]) for row in rows)
    assert filled == (columns if losses[-1] else 2 if any(losses) else 0)
    if losses == [4.0, 2.0, 0.0]:
        assert rows[0].endswith("|█")
        assert rows[1].endswith("|██")
        assert rows[0].startswith("         4 ")


def test_a_curve_that_cannot_be_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(mlferry.errors.ModelFileError, match="cannot write into"):
        curve_picture([1.0], tmp_path / "nowhere" / "loss.png")
