"""The README's code runs, and the generated pages are those of today's registries."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mlferry
from mlferry.cli.app import app
from tests import doc_blocks

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
    if name == "keras.md" and sys.version_info < (3, 11):
        pytest.skip("the page is of a Keras that needs Python 3.11")
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == WRITER.PAGES[name](), "run `make docs`"


PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [name for name in NAMES if "```" in text_of(name)])
def test_every_block_runs(page: str, tmp_path: Path) -> None:
    """One after the other, in a process of their own and a folder with the examples' files.

    The README begins in an empty folder. What blocks print is what the page shows below them.
    """
    text = text_of(page)
    known = {"python", "shell", "swift", *doc_blocks.SHOWN_ONLY}
    assert {language for language, _, _ in doc_blocks.blocks(text)} <= known
    if page != "README.md":
        mlferry.examples.copy(tmp_path)
    actual = doc_blocks.run(text, tmp_path)
    for _, of, shown in doc_blocks.outputs(text):
        assert doc_blocks.same(shown, actual[of]), f"run `make docs`: {shown}\nis\n{actual[of]}"


@pytest.mark.parametrize(
    ("shown", "result", "alike"),
    [
        ("a 1.00 b", "a 1.01 b\n", True),
        ("a 1.00 b", "a 1.10 b", False),
        ("a 1,000 b", "a 1,010 b", True),
        ("a\n...\nc", "a\nb 3\nc", True),
        ("a\n...\nc", "a\nb 3\nd", False),
        ("1e-05", "1.01e-05", True),
        ("1e-05", "2e-05", False),
        ("a", "", False),
        ("1, 2, ...", "1, 2, 3", False),
        ("3.15.1", "3.15.1", True),
    ],
)
def test_outputs_are_compared(shown: str, result: str, alike: bool) -> None:
    assert doc_blocks.same(shown, result) is alike


# Where mlferry is published: empty until it is. README, guides and metadata follow from it.
ADDRESS = dict(re.findall(r'^(index|repository) = "(.*)"$', text_of("pyproject.toml"), re.M))
FIRST = re.compile(r"pip install '?mlferry(\[(all|shell)\])?'?(\s|$|`)")


def install_problems(name: str, text: str, index: str) -> list[str]:
    """What a page says of installing that is not so.

    Where mlferry is on no index, pages install from a clone; pip adds there what an extra needs.
    Where it is, README and first page install from there.
    """
    from_index = FIRST.search(text) is not None
    if not index:
        return [f"{name} installs from an index"] if from_index else []
    wrong = [f"{name} does not install {index}"] if name in FRONT and not from_index else []
    return wrong + [f"{name} says that it is not published"] * ("not on the package index" in text)


FRONT = ("README.md", "docs/index.md")


def test_pages_say_where_mlferry_is() -> None:
    every = [actual for n in NAMES for actual in install_problems(n, text_of(n), ADDRESS["index"])]
    assert every == []
    assert [*ADDRESS] == ["index", "repository"]
    _, told, rest = text_of("pyproject.toml").partition("[project.urls]\n")
    urls = re.findall(r'= "(.*)"', rest.partition("\n[")[0]) if told else []
    assert urls == [url for url in ADDRESS.values() if url]
    site = re.search(r"^repo_url: (\S+)$", text_of("mkdocs.yml"), re.MULTILINE)
    assert (site[1] if site else "") == ADDRESS["repository"]


@pytest.mark.parametrize(
    ("text", "index", "wrong"),
    [
        ("pip install '.[all]'", "", False),
        ("pip install 'mlferry[onnxruntime]'", "", False),
        ("pip install 'mlferry[all]'", "", True),
        ("pip install mlferry", "", True),
        ("pip install 'mlferry[all]'", "https://pypi.org/project/mlferry/", False),
        ("pip install '.[all]'", "https://pypi.org/project/mlferry/", True),
        ("not on the package index; pip install mlferry", "https://pypi.org/x", True),
    ],
)
def test_what_is_said_of_installing_is_checked(text: str, index: str, wrong: bool) -> None:
    assert bool(install_problems("README.md", text, index)) is wrong


def test_errors_that_people_search_for_are_real() -> None:
    """What headings of the FAQ quote stands in the library's messages."""
    source = "\n".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
        for path in (ROOT / "mlferry").rglob("*.py")
        if not path.name.endswith("_pb2.py")
    )
    quoted = [
        part.strip(" ,")
        for heading in re.findall(r"^## (.*)$", text_of("docs/faq.md"), re.MULTILINE)
        for quote in re.findall(r'"([^"]+)"', heading)
        for part in quote.split("...")
        if part.strip(" ,")
    ]
    assert len(quoted) > 10
    assert [part for part in quoted if part not in source] == []
    names = re.findall(r"^## .*?(\w+Error)$", text_of("docs/faq.md"), re.MULTILINE)
    assert names
    assert all(hasattr(mlferry.errors, name) for name in names)


def test_workflows_in_the_guides_are_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    actual = [
        yaml.safe_load(body)
        for name in NAMES
        for language, _, body in doc_blocks.blocks(text_of(name))
        if language == "yaml"
    ]
    assert actual
    for workflow in actual:
        for line in (step.get("run", "") for step in workflow["jobs"]["check"]["steps"]):
            words = shlex.split(line)
            assert not words or words[0] == "pip" or words[1] in app.commands, line


def test_swift_blocks_parse() -> None:
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_swift")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    actual = [
        body
        for name in NAMES
        for language, _, body in doc_blocks.blocks(text_of(name))
        if language == "swift"
    ]
    assert actual
    for body in actual:
        assert not parser.parse(body.encode()).root_node.has_error, body


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="mkdocstrings of Python 3.10 does not go with pymdownx"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "converting.html").read_text(encoding="utf-8")
    assert "minimum_deployment_target" in reference
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*)"', page.read_text("utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"
    headings = re.findall(r'<h2 id="([^"]*)"', reference)
    assert len(headings) == len({*headings})
    assert "converters.keras.convert" in reference
    notebook = (tmp_path / "site" / "notebooks" / "quantization.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in notebook
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text("utf-8"))
    hits = [
        (each.get("boost", 1), each["location"])
        for each in index["docs"]
        if "flexible shape" in each["title"]
    ]
    assert max(hits)[0] > 1
    assert max(hits)[1].startswith("flexible-shapes.html")


def test_every_page_is_in_the_site() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        assert f": {path.relative_to(ROOT / 'docs').as_posix()}" in config


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
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
