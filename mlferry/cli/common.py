"""What several commands share: options, reading what users write, printing."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from mlferry import limits
from mlferry.cli import options
from mlferry.cli.options import FILE, F
from mlferry.errors import CustomLayerError, MlferryError, ModelFileError
from mlferry.text import readable_json

if TYPE_CHECKING:
    from mlferry.models.model import MLModel


model_argument = click.argument("model", type=FILE)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
custom_classes_option = options.file(
    "--custom", "FILE.py", "Python file that registers custom classes."
)
out_option = click.option(
    "-o", "--out", required=True, type=FILE, metavar="FILE", help="The .mlmodel file to write."
)


def run_options(function: F) -> F:
    """What `MLModel` takes that says how a model is run."""
    for option in (
        options.value(
            "--function", "NAME", "The function of an ML Program to run, where it has several."
        ),
        options.choice(
            "--precision",
            ["half", "exact"],
            "Of ML Programs: whether values of float16 are rounded where the program does.",
            default="half",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="Threads that a prediction may use; by default one per core.",
        ),
        options.choice(
            "--engine",
            ["numpy", "onnxruntime"],
            "The library that runs the model.",
            default="numpy",
        ),
    ):
        function = option(function)
    return function


def limits_of(
    context: click.Context, option: click.Parameter, items: tuple[str, ...]
) -> dict[str, float]:
    """``NAME=VALUE`` options as `mlferry.limits`: ``seconds=600``, ``weights=32GiB``.

    Raises:
        click.BadParameter: there is no such limit, or no such value.
    """
    defaults = asdict(limits.Limits())
    values: dict[str, float] = {}
    for item in items:
        name, _, text = item.partition("=")
        if name not in defaults:
            raise click.BadParameter(f"there is no limit {name!r}; there are {', '.join(defaults)}")
        kind = type(defaults[name])
        number = re.fullmatch(r"(\d+(?:\.\d+)?)(|KiB|MiB|GiB)", text)
        if kind is bool and text in ("yes", "no"):
            values[name] = text == "yes"
        elif kind is bool or number is None:
            way = "yes or no" if kind is bool else "a number, or one of KiB, MiB or GiB"
            raise click.BadParameter(f"{item!r}: the value is {way}")
        else:
            unit = 1024 ** ("", "KiB", "MiB", "GiB").index(number[2])
            values[name] = kind(float(number[1]) * unit)
    return values


def run_file(path: Path | None) -> Mapping[str, Any]:
    """What the user's own Python file defines.

    Raises:
        ModelFileError: there is no such file.
        CustomLayerError: it raises.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}")
    try:
        return runpy.run_path(str(path))
    except MlferryError:
        raise
    except Exception as error:
        raise CustomLayerError(f"{path} raised {type(error).__name__}: {error}") from error


def pairs(items: tuple[str, ...], option: str) -> dict[str, str]:
    """``NAME=VALUE`` options as a dict.

    Raises:
        click.UsageError: one has no name, or a name comes twice.
    """
    by_name = several(items, option)
    for name, values in by_name.items():
        if len(values) > 1:
            raise click.UsageError(f"{option} of {name!r} are given twice")
    return {name: value for name, (value,) in by_name.items()}


def several(items: tuple[str, ...], option: str) -> dict[str, list[str]]:
    """``NAME=VALUE`` options as a dict from names to all values given for them.

    Raises:
        click.UsageError: one has no name.
    """
    by_name: dict[str, list[str]] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not separator or not name or not value:
            raise click.UsageError(f"{item!r}: {option} are written NAME=VALUE")
        by_name.setdefault(name, []).append(value)
    return by_name


def numbers(text: str, option: str) -> list[float]:
    """``1,2.5,1/255`` as numbers.

    Raises:
        click.UsageError: it is something else.
    """
    try:
        return [_number(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise click.UsageError(
            f"{option} {text!r}: write numbers with commas, e.g. 1,2.5, or 1/255"
        ) from None


def _number(text: str) -> float:
    top, slash, bottom = text.partition("/")
    return float(top) / float(bottom) if slash else float(top)


def plain(value: object) -> Any:
    """Convert arrays, paths and NumPy's numbers to what JSON has."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)


def precision_of(precision: str | None, keep: Sequence[str]) -> list[str] | str | None:
    """The precision of a program: its name, or the values that stay in float32.

    Raises:
        click.UsageError: both are given.
    """
    if keep and precision == "float32":
        raise click.UsageError("--keep is for --precision float16: in float32 everything stays")
    return list(keep) or precision


def save(model: MLModel, target: Path, *, as_json: bool) -> None:
    """Save a model, and print where it is and what it is."""
    path = model.save(target)
    if as_json:
        print_json({"path": path, "model": model.describe().to_dict()})
    else:
        click.echo(f"{model!r}\nwritten to {path}")


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a value as JSON; non-ASCII characters stay if the stream can encode them."""
    text = readable_json(json.dumps(value, indent=2, default=plain, ensure_ascii=False))
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=plain)
    click.echo(text)
