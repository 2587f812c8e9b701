"""Bars are drawn where somebody looks: on a terminal and in a notebook, not in a pipe."""

from __future__ import annotations

import io
import sys
import types

import pytest

from mlferry import progress as bars
from mlferry.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modules of which bars are drawn."""
    matches: list[str] = []

    def load(name: str) -> object:
        return types.SimpleNamespace(tqdm=lambda items, **_: (matches.append(name), items)[1])

    monkeypatch.setattr(bars.importlib, "import_module", load)
    return matches


def test_none_in_a_pipe(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert [*progress([1, 2], "x")] == [1, 2]
    assert drawn == []


def test_on_a_terminal(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert [*progress([1, 2], "x")] == [1, 2]
    assert drawn == ["tqdm"]


@pytest.mark.parametrize(("size", "modules"), [(100 << 20, []), (1 << 30, ["tqdm"])])
def test_of_large_things(
    size: int, modules: list[str], drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes no time has no bar."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert [*bars.progress_of([1, 2], "x", size)] == [1, 2]
    assert drawn == modules


@pytest.mark.parametrize(
    ("widgets", "shell", "module"),
    [
        (True, "kernel", ["tqdm.notebook"]),
        (False, "kernel", ["tqdm"]),
        (True, "terminal", []),
        (True, None, []),
    ],
)
def test_in_a_notebook(
    widgets: bool, shell: str | None, module: list[str], drawn: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    spec = object() if widgets else None
    monkeypatch.setattr(bars.importlib.util, "find_spec", lambda name: spec)
    kernel = types.SimpleNamespace(**({"kernel": 1} if shell == "kernel" else {}))
    fake = types.SimpleNamespace(get_ipython=lambda: kernel if shell else None)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    assert [*progress([1, 2], "x")] == [1, 2]
    assert drawn == module


def test_without_tqdm_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert [*progress([1, 2], "x")] == [1, 2]
