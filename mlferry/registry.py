"""One small registry for converters, kernels, shape rules and users' classes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mlferry.errors import RegistrationError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """A registered object, the first version of the source that it applies to, and its options."""

    value: T
    since: int = 1
    options: dict[str, Any] = field(default_factory=dict)


class Registry(Generic[T]):
    """Maps names to objects, with versions.

    Args:
        what: what is registered, for messages ("Keras layer", "kernel").
        replace: whether a name may be registered again: only for what users register, as notebook
            cells run twice.
    """

    def __init__(self, what: str, *, replace: bool = False) -> None:
        self.what = what
        self._replace = replace
        self._entries: dict[str, list[Entry[T]]] = {}

    def register(self, *names: str, since: int = 1, **options: object) -> Callable[[T], T]:
        """Decorator that registers a function or class under one or more names.

        Raises:
            RegistrationError: a name is taken already for this version.
        """

        def decorate(value: T) -> T:
            for name in names:
                self.add(name, value, since=since, **options)
            return value

        return decorate

    def add(self, name: str, value: T, *, since: int = 1, **options: object) -> None:
        """Register one object under one name; see `register`."""
        entries = self._entries.setdefault(name, [])
        same = [entry for entry in entries if entry.since == since]
        if same and not self._replace:
            raise RegistrationError(f"{self.what} {name!r} (since {since}) is registered twice")
        others = [entry for entry in entries if entry.since != since]
        new = Entry(value, since, options)
        self._entries[name] = sorted([*others, new], key=lambda entry: -entry.since)

    def find(self, name: str, version: int | None = None) -> Entry[T] | None:
        """The newest entry of `name` whose `since` is not above `version`."""
        for entry in self._entries.get(name, ()):
            if version is None or entry.since <= version:
                return entry
        return None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def suggest(self, name: str) -> list[str]:
        """Registered names that look like `name`, best first."""
        return suggest(name, list(self._entries))


def suggest(name: str, known: list[str]) -> list[str]:
    """The entries of `known` that look like `name`, ignoring case, best first."""
    by_lower = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.65)
    return [by_lower[entry] for entry in close]


def did_you_mean(name: str, known: list[str]) -> str:
    """`` Did you mean 'x'?``, or nothing."""
    close = suggest(name, known)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
