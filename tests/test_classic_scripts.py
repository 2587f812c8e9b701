"""Scripts in the styles of 2017 to 2021 run, with their imports changed, and check results."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = sorted((Path(__file__).parent / "classic_scripts").glob("*.py"))


def test_there_are_ten() -> None:
    assert len(SCRIPTS) == 10


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_script(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Callable[[str], Any]
) -> None:
    from mlferry.custom import CUSTOM_LAYERS

    for needed in ("keras", "tensorflow", "onnx", "PIL"):
        library(needed)
    before = dict(CUSTOM_LAYERS._entries)
    monkeypatch.chdir(tmp_path)
    try:
        runpy.run_path(str(script))
    finally:
        CUSTOM_LAYERS._entries.clear()
        CUSTOM_LAYERS._entries.update(before)
