"""The page of coremltools' names says what is so; a change of a signature changes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FEWEST = 360


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import coremltools_names

    yield coremltools_names
    for module in ("coremltools_names", "coremltools_reasons", "write_docs"):
        sys.modules.pop(module, None)


def test_the_page_is_up_to_date(names: Any) -> None:
    import write_docs

    page = (ROOT / "docs/coremltools-names.md").read_text(encoding="utf-8")
    assert page == write_docs.names_page(), "run `make docs`"


def test_most_names_are_the_same(names: Any) -> None:
    rows = names.table()
    assert len(rows) >= FEWEST
    assert {row.status for row in rows} == {"same", "differs", "left out"}
    assert all(bool(row.remark) == (row.status != "same") for row in rows)
    by_name = {row.name: row.status for row in rows}
    for name in (
        "models.neural_network.builder.NeuralNetworkBuilder.add_lrn",
        "models.MLModel.author",
    ):
        assert by_name[name] == "same"


def other(name: str, wrong: int = 2) -> None:
    """A function with other arguments."""


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("mlferry.models.utils.save_spec", other),
        ("mlferry.models.neural_network.builder.NeuralNetworkBuilder.add_lrn", other),
        ("mlferry.models.utils.has_custom_layer", None),
    ],
)
def test_a_change_needs_a_reason(
    names: Any, monkeypatch: pytest.MonkeyPatch, name: str, changed: Any
) -> None:
    holder, _, attribute = name.rpartition(".")
    import importlib

    owner, _, cls = holder.rpartition(".")
    actual = importlib.import_module(owner)
    monkeypatch.setattr(getattr(actual, cls), attribute, changed)
    with pytest.raises(LookupError, match="has no reason"):
        names.table()


def test_a_reason_that_nothing_needs(names: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.LEFT_OUT, "models.utils.save_spec", "not so")
    with pytest.raises(LookupError, match=r"no reason is needed for models\.utils\.save_spec"):
        names.table()


def test_sources_are_read(names: Any, tmp_path: Path) -> None:
    """Names, defaults of the newest release, methods; nothing private."""
    for release, default in (("2.0", "1"), ("3.0", "2")):
        package = tmp_path / release / "coremltools/models"
        package.mkdir(parents=True)
        package.joinpath("utils.py").write_text(
            f"def load(path, size={default}, **kwargs): ...\ndef _hidden(): ...\n"
            "class Kind:\n    def __init__(self, a, b=None): ...\n    def go(self, far): ...\n"
        )
    assert names.extract([tmp_path / "3.0", tmp_path / "2.0"]) == {
        "models.utils.load": {
            "releases": [2, 3], "arguments": {"path": None, "size": "2", "**kwargs": None}
        },
        "models.utils.Kind": {"releases": [2, 3], "arguments": {"a": None, "b": "None"}},
        "models.utils.Kind.go": {"releases": [2, 3], "arguments": {"far": None}},
    }  # fmt: skip
