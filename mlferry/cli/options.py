"""The options of commands, by what they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


def flag(name: str, text: str) -> Callable[[F], F]:
    """An option that is given or not."""
    return click.option(name, is_flag=True, help=text)


def file(name: str, metavar: str, text: str) -> Callable[[F], F]:
    """An option that is a path."""
    return click.option(name, type=FILE, metavar=metavar, help=text)


def value(name: str, metavar: str, text: str) -> Callable[[F], F]:
    """An option that is text."""
    return click.option(name, metavar=metavar, help=text)


def preset(name: str, default: str, text: str) -> Callable[[F], F]:
    """An option that is text, with a default that is shown."""
    return click.option(name, default=default, show_default=True, help=text)


def repeated(name: str, parameter: str, metavar: str, text: str) -> Callable[[F], F]:
    """An option that is text, given any number of times, for a parameter of another name."""
    return click.option(name, parameter, multiple=True, metavar=metavar, help=text)


def choice(
    name: str, values: Sequence[str], text: str, *, default: str | None = None
) -> Callable[[F], F]:
    """An option that is one of several words; its default, if it has one, is shown."""
    kind = click.Choice(values)
    shows = default is not None
    return click.option(name, type=kind, default=default, show_default=shows, help=text)
