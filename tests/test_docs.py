"""The README's code runs, and the generated pages are those of today's registries."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WRITER = load(ROOT / "scripts" / "write_docs.py")


@pytest.mark.parametrize("name", WRITER.PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == WRITER.PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    """One after the other, in a process of their own and a folder with the example's files."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for name in ("digits_stn.h5", "digits_test.npz"):
        (tmp_path / name).write_bytes((ROOT / "examples/spatial_transformer" / name).read_bytes())
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_demo_prints_its_four_steps(capsys: pytest.CaptureFixture[str]) -> None:
    load(ROOT / "examples/spatial_transformer/demo.py").main()
    text = capsys.readouterr().out
    steps = [
        "GridSampler: grid_sampler",
        "def convert_GridSampler(node):",
        "digits_stn.h5 -> digits_stn.mlmodel",
        "image: multi-array float32 1 x 40 x 40 x 1",
        "samples the image bilinearly",
        "parameter output_height: 20",
        "accuracy: 98.7%",
        "largest difference from Keras's own predictions",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


def test_links_of_the_pages_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
