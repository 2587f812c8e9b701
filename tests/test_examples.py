"""The files that README and guides work with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry import examples

ROOT = Path(__file__).parent.parent
MADE = ("digit.npy", "digit.png", "style.onnx", *(f"photos/{i:02}.png" for i in range(20)))


def test_what_is_made_is_what_the_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("onnx")
    spec = importlib.util.spec_from_file_location("made", ROOT / "scripts" / "write_examples.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["write_examples.py", str(tmp_path)])
    script.main()
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
    assert written == sorted(MADE)
    for name in MADE:
        one, other = tmp_path / name, examples.path(name)
        if name.endswith(".png"):  # another zlib packs the same pixels otherwise
            from PIL import Image

            assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
        elif name.endswith(".npy"):
            assert np.array_equal(np.load(one), np.load(other))
        else:
            import onnx

            assert onnx.load(one).graph == onnx.load(other).graph


def test_copies_are_the_same_and_small(tmp_path: Path) -> None:
    folder = examples.copy(tmp_path / "new" / "digits")
    assert {*MADE, "hooks.py", "grid_sampler.py", "digits.onnx"} <= {*examples.names()}
    for name in examples.names():
        assert (folder / name).read_bytes() == examples.path(name).read_bytes()
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 800_000
    assert examples.copy(folder) == folder


@pytest.mark.parametrize("name", ["none.h5", "..", ".", "../__init__.py", "/etc/passwd"])
def test_there_are_no_others(name: str) -> None:
    with pytest.raises(mlferry.MlferryError, match="there are digit"):
        examples.path(name)


def test_folders_have_a_path() -> None:
    assert examples.path("photos").is_dir()


def test_copies_stop_at_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(mlferry.MlferryError, match="cannot write the examples"):
        examples.copy(tmp_path / "file")
