"""The code blocks of a page, the files that they find, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

SHOWN_ONLY = ("text", "toml", "yaml", "")
PRINTS = "prints"  # the title of a block of text that is the output of the block before it
_MARK = "\x1e"  # stands before the number of a block whose output begins
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
_LEFT_OUT = r"^\.\.\.$"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Language, title and text of every block of a page."""
    for head, body in _FENCE.findall(text):
        language, _, rest = head.partition(" ")
        yield language, rest.removeprefix('title="').removesuffix('"'), body


def program(text: str) -> str:
    """A page as one Python program: its Python, and its commands in a shell, in their order."""
    lines = ["import os, sys", "from mlferry.cli import main as mlferry_command"]
    for index, (language, title, body) in enumerate(blocks(text)):
        if language in ("python", "shell"):
            lines.append(f"print({_MARK + str(index)!r}, flush=True)")
        if language == "python" and title:
            lines.append(f"open({title!r}, 'w').write({body!r})")
        elif language == "python":
            lines.append(body)
        elif language == "shell":
            for line in body.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "mlferry":
                    lines.append(f"assert mlferry_command({words[1:]!r}) == 0, {line!r}")
                elif words and words[0] == "cd":
                    lines.append(f"os.chdir({words[1]!r}); sys.path.insert(0, os.getcwd())")
                else:
                    assert not words or words[:2] == ["pip", "install"], line
    return "\n".join(lines)


def run(text: str, folder: Path, python: str = sys.executable) -> dict[int, str]:
    """Run a page in a process of its own; what each of its blocks prints.

    Raises:
        AssertionError: it ends with an error.
    """
    script = folder / "page.py"
    script.write_text(program(text), encoding="utf-8")
    done = subprocess.run(
        [python, "page.py"], cwd=folder, capture_output=True, text=True, check=False,
        encoding="utf-8", env={**os.environ, "MPLBACKEND": "agg", "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    script.unlink()
    parts = re.split(rf"^{_MARK}(\d+)\n", done.stdout, flags=re.MULTILINE)
    return {int(index): part for index, part in zip(parts[1::2], parts[2::2], strict=True)}


def outputs(text: str) -> Iterator[tuple[int, int, str]]:
    """Of every block that shows an output: its own number, that of the block it is of, its text."""
    last = -1
    for index, (language, title, body) in enumerate(blocks(text)):
        if language in ("python", "shell"):
            last = index
        elif title == PRINTS:
            yield index, last, body


def same(shown: str, result: str) -> bool:
    """Whether a page shows what is printed: numbers to 3 %; a line of ``...`` is left out lines."""
    pattern = ""
    for part in re.split(rf"({_NUMBER.pattern}|{_LEFT_OUT})", shown.strip(), flags=re.MULTILINE):
        if part == "...":
            pattern += "(?:.*?)"
        elif _NUMBER.fullmatch(part):
            pattern += f"({_NUMBER.pattern})"
        else:
            pattern += re.escape(part)
    actual = re.fullmatch(pattern, result.strip(), re.DOTALL)
    if actual is None:
        return False
    expected = (float(each.replace(",", "")) for each in _NUMBER.findall(shown))
    numbers = (float(each.replace(",", "")) for each in actual.groups())
    return all(
        abs(one - two) <= 0.03 * abs(one) for one, two in zip(expected, numbers, strict=True)
    )


def with_outputs(text: str, result: dict[int, str]) -> str:
    """The page with what its blocks print today; a block with ``...`` has to be mended by hand."""
    stale = {index: result[of] for index, of, shown in outputs(text) if not same(shown, result[of])}
    count = iter(range(len(list(blocks(text)))))

    def renewed(actual: re.Match[str]) -> str:
        index = next(count)
        if index not in stale:
            return actual[0]
        mended = re.search(_LEFT_OUT, actual[2], re.MULTILINE) is None
        assert mended, f"no longer printed:\n{actual[2]}\nbut\n{stale[index]}"
        return f"```{actual[1]}\n{stale[index].strip()}\n```"

    return _FENCE.sub(renewed, text)
