"""How to show text that comes from a file: it is data, even on a terminal.

Whoever made a file chose its names, descriptions and labels. Printed unchanged, an escape sequence
can clear the screen or set the title of a terminal, a carriage return can hide what precedes it,
and bidirectional or invisible characters can make two different names look alike.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, formats, surrogates, separators


def printable(text: str, *, lines: bool = False) -> str:
    r"""A text in which control and invisible characters are written as escapes: ``\x1b``.

    Args:
        text: text from a file, or with parts from one.
        lines: whether line breaks and tabs stay as they are.

    Returns:
        The text without characters of the Unicode categories Cc, Cf, Cs, Zl and Zp; on one line
        unless `lines` is set.
    """
    if text.isprintable():
        return text
    stays = "\n\t" if lines else ""
    return "".join(
        _escape(each) if each not in stays and unicodedata.category(each) in _HIDDEN else each
        for each in text
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def readable_json(text: str) -> str:
    r"""JSON in which only control and invisible characters are escaped: ``\\u001b``.

    Args:
        text: JSON without escapes of its own for characters outside of ASCII.
    """
    return "".join(
        each
        if each == "\n" or unicodedata.category(each) not in _HIDDEN
        else json.dumps(each)[1:-1]
        for each in text
    )


def paragraph(lines: Iterable[str]) -> str:
    """Lines of text, each printable."""
    return "\n".join(map(printable, lines))


def indented(text: str, by: int) -> str:
    """A printable text of several lines; those after the first are indented by `by` spaces."""
    return f"\n{' ' * by}".join(printable(line) for line in text.splitlines() or [""])


def identifier(text: str) -> str:
    """A text as a name that Python and Swift accept."""
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return f"_{name}" if not name or name[0].isdigit() else name


def numbered(hint: str, is_taken: Callable[[str], bool]) -> str:
    """A text, or it with the first number with which it is not taken."""
    name, number = hint, 0
    while is_taken(name):
        number += 1
        name = f"{hint}_{number}"
    return name


def unused(hint: str, taken: set[str]) -> str:
    """A text, or it with a number, that is not taken; then it is."""
    name = numbered(hint, taken.__contains__)
    taken.add(name)
    return name


class _Printable(logging.Filter):
    """Formats records, with control characters written as escapes."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage(), lines=True), None
        return True


def logger_of(module: str) -> logging.Logger:
    """The logger of a module; its messages are printable."""
    logger = logging.getLogger(module)
    if not any(isinstance(each, _Printable) for each in logger.filters):
        logger.addFilter(_Printable())
    return logger
