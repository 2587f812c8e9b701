"""Problems of a model: each broken rule is a `Problem`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mlferry.registry import did_you_mean
from mlferry.text import printable


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Attributes:
        severity: "error" if the numbers would be undefined, "warning" if a device would refuse the
            model although it can be evaluated, "note" for what is worth knowing.
        where: the layer, feature or part of the model.
        message: what was found and what is allowed.
    """

    severity: str
    where: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.message}")


Problems = Iterator[Problem]


def error(message: str, where: str = "") -> Problem:
    """The numbers would be undefined."""
    return Problem("error", where, message)


def warning(message: str, where: str = "") -> Problem:
    """A device, or Apple's checker, would refuse the model; it can be evaluated."""
    return Problem("warning", where, message)


def note(message: str, where: str = "") -> Problem:
    """Worth knowing."""
    return Problem("note", where, message)


def within(place: str, problems: Iterable[Problem]) -> Problems:
    """The problems of a part, with the place of that part in the whole."""
    for problem in problems:
        where = f"{place} > {problem.where}" if problem.where else place
        yield Problem(problem.severity, where, problem.message)


def listed(values: Iterable[Any]) -> str:
    """Numbers as text: ``[3, 3]``; a long list is cut off."""
    entries = list(values)
    text = ", ".join(map(str, entries[:8]))
    return f"[{text}{', ...' if len(entries) > 8 else ''}]"


def hint(name: str, known: Iterable[str]) -> str:
    """`did_you_mean`, if there are few enough names to compare."""
    names = list(known)
    return did_you_mean(name, names) if len(names) <= 2000 else ""
