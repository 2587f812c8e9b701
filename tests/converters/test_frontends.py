"""Another package teaches `convert` a source: the example package, installed as pip would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError, ModelFileError, UnsupportedOpError

EXAMPLE = Path(__file__).parents[2] / "examples" / "frontend"


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, text: str) -> None:
    """What pip leaves of a package of one module: the module and its metadata."""
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    project = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    group, line = re.findall(r'entry-points\."(.*)"\]\n(.*)', project)[0]
    name = module.removeprefix("mlferry_")
    (info / "entry_points.txt").write_text(
        f"[{group}]\n{line}\n".replace("tiny = ", f"{name} = ")
        .replace("mlferry_tiny", module)
        .replace('"', "")
    )
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    source = (EXAMPLE / "mlferry_tiny.py").read_text(encoding="utf-8")
    install(monkeypatch, tmp_path, "mlferry_tiny", source)
    return tmp_path


def write(folder: Path, *steps: list[object]) -> Path:
    path = folder / "model.tiny"
    path.write_text(json.dumps({"tiny": 1, "size": 3, "steps": steps}))
    return path


def test_an_installed_package_converts_its_files(tiny: Path) -> None:
    path = write(tiny, ["scale", 2.0], ["relu"])
    model = mlferry.convert(str(path))
    actual = model.predict({"value_0": np.array([[-1.0, 0.5, 3.0]])})
    assert isinstance(actual, dict)
    assert actual["result"].tolist() == [[0.0, 1.0, 6.0]]
    assert model.user_defined_metadata["com.github.mlferry.source"] == "Tiny"


def test_it_gets_custom_functions_and_the_error_for_unknown_ops(tiny: Path) -> None:
    path = write(tiny, ["scale", 2.0], ["twist", 7])
    with pytest.raises(UnsupportedOpError, match="twist"):
        mlferry.convert(path)
    functions = {"twist": lambda node: mlferry.CustomLayerParams("Twist", "", {"by": node.by})}
    model = mlferry.convert(path, custom_conversion_functions=functions)
    assert "custom layer Twist" in str(model)


def test_its_own_errors_and_what_nobody_knows(tiny: Path) -> None:
    (tiny / "broken.tiny").write_text("{")
    with pytest.raises(ModelFileError, match=r"cannot read .*broken\.tiny"):
        mlferry.convert(tiny / "broken.tiny")
    with pytest.raises(ConversionError, match="of installed frontends, tiny do not know it"):
        mlferry.convert(3.5)


def test_a_broken_package_hurts_nobody(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    install(monkeypatch, tmp_path_factory.mktemp("other"), "mlferry_awry", "raise OSError('no')")
    model = mlferry.convert(write(tiny, ["relu"]))
    assert "the frontend 'awry' cannot be imported: OSError('no')" in caplog.text
    assert "activation" in str(model)
