"""What coremltools 2 to 5 had for Keras, ONNX and neural networks, and what mlferry has of it.

``python scripts/coremltools_names.py FOLDER...`` reads the sources of releases, each unpacked into
a folder that is named after it, and writes names, arguments and defaults into
`coremltools_names.json`. `table` compares that file with mlferry, for the page of `docs/` and for
its test.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coremltools_reasons import DIFFERENT, LEFT_OUT

DATA = Path(__file__).with_name("coremltools_names.json")

# Where a user finds what a file defines, and which of its names, where not all public ones.
PLACES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "converters/_converters_entry.py", ("convert",)),
    ("", "converters/mil/input_types.py", (
        "ClassifierConfig", "TensorType", "ImageType", "RangeDim", "Shape", "EnumeratedShapes")),
    ("", "__init__.py", ()),
    ("converters.keras", "converters/keras/_keras_converter.py", ("convert", "convertToSpec")),
    ("converters.onnx", "converters/onnx/_converter.py", ("convert",)),
    ("models", "models/model.py", ("MLModel",)),
    ("models.datatypes", "models/datatypes.py", ()),
    ("models.pipeline", "models/pipeline.py", ()),
    ("models.utils", "models/utils.py", ()),
    *((f"models.neural_network.{name}", f"models/neural_network/{name}.py", ()) for name in (
        "builder", "flexible_shape_utils", "optimization_utils", "printer",
        "quantization_utils", "spec_inspection_utils", "update_optimizer_utils", "utils")),
    ("models.neural_network", "models/neural_network.py", ()),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A name of coremltools.

    Attributes:
        name: the path behind ``coremltools.``.
        arguments: how it is called.
        releases: the major releases that have it.
        status: "same", "differs" or "left out".
        remark: how, or why.
    """

    name: str
    arguments: str
    releases: str
    status: str
    remark: str = ""


# ---- reading the sources ------------------------------------------------------------------


def extract(folders: list[Path]) -> dict[str, Any]:
    """The names of releases, oldest first."""
    found: dict[str, Any] = {}
    for folder in sorted(folders, key=lambda folder: folder.name):
        release = int(folder.name.split(".")[0])
        for name, arguments in _names_of(folder / "coremltools"):
            entry = found.setdefault(name, {"releases": [], "arguments": {}})
            if release not in entry["releases"]:
                entry["releases"].append(release)
            entry["arguments"].update(arguments)  # the newest default counts
    return found


def _names_of(package: Path) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    for place, file, only in PLACES:
        path = package / file
        if not path.exists():
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if only and node.name not in only:
                continue
            name = f"{place}.{node.name}".lstrip(".")
            if isinstance(node, ast.FunctionDef):
                yield name, _arguments(node)
            else:
                yield from _class(name, node)


def _class(name: str, node: ast.ClassDef) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
    yield name, _arguments(methods["__init__"])[1:] if "__init__" in methods else []
    for method in methods.values():
        if not method.name.startswith("_"):
            yield f"{name}.{method.name}", _arguments(method)[1:]


def _arguments(node: ast.FunctionDef) -> list[tuple[str, str | None]]:
    given = node.args
    first = len(given.args) - len(given.defaults)
    defaults = [None] * first + [ast.unparse(default) for default in given.defaults]
    found = list(zip([a.arg for a in given.args], defaults, strict=True))
    return found + ([(f"**{given.kwarg.arg}", None)] if given.kwarg else [])


# ---- comparing ----------------------------------------------------------------------------


def table() -> list[Row]:
    """A row for every name, with what mlferry has of it.

    Raises:
        LookupError: something differs, or is missing, without a reason in `coremltools_reasons`;
            or a reason is not needed any more.
    """
    names = json.loads(DATA.read_text(encoding="utf-8"))
    used: set[str] = set()
    rows = [_row(name, entry, used) for name, entry in names.items()]
    unused = sorted({*LEFT_OUT, *DIFFERENT} - used)
    if unused:
        raise LookupError(f"no reason is needed for {', '.join(unused)}")
    return rows


def _row(name: str, entry: dict[str, Any], used: set[str]) -> Row:
    releases = ", ".join(map(str, entry["releases"]))
    shown = ", ".join(_shown(a, default) for a, default in entry["arguments"].items())
    ours = _find(name)
    if ours is None:
        return Row(name, shown, releases, "left out", _reason(LEFT_OUT, name, used))
    differing = list(_differing(ours, entry["arguments"]))
    remarks = [f"`{a}`: {_reason(DIFFERENT, f'{name}({a})', used)}" for a in differing]
    if name in DIFFERENT:
        remarks.append(_reason(DIFFERENT, name, used))
    return Row(name, shown, releases, "differs" if remarks else "same", "; ".join(remarks))


def _reason(reasons: dict[str, str], name: str, used: set[str]) -> str:
    """The reason for a name, for the argument of it, or for everything that it is part of."""
    argument = f"({name.partition('(')[2]}" if "(" in name else ""
    places = name.partition("(")[0].split(".")
    keys = [name, *(".".join(places[:end]) + ".*" for end in range(len(places), 0, -1))]
    for key in [*keys, argument]:
        if key in reasons:
            used.add(key)
            return reasons[key]
    raise LookupError(f"{name} is not as in coremltools, and coremltools_reasons has no reason")


def _find(name: str) -> Any:
    """What mlferry has under a name; None where it has nothing."""
    found: Any = importlib.import_module("mlferry")
    for part in name.split("."):
        holder = found
        found = getattr(holder, part, None)
        if found is None:
            fields = [f for cls in getattr(holder, "__mro__", ()) for f in vars(cls).get(
                "__annotations__", ())]  # fmt: skip
            return "an attribute of the objects" if part in fields else None
    return found


def _differing(ours: Any, arguments: dict[str, Any]) -> Iterator[str]:
    """The arguments that ours does not take, or with another default."""
    if not callable(ours) or isinstance(ours, property):
        return
    taken = inspect.signature(ours).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    for argument, default in arguments.items():
        if argument == "self":
            continue
        plain = argument.removeprefix("**")
        if plain not in taken:
            if not (anything and argument.startswith("**")):
                yield argument
        elif not _same_default(taken[plain].default, default):
            yield argument


def _same_default(ours: Any, theirs: str | None) -> bool:
    """Whether two defaults are equal; empty ones, and those that are no literals, are."""
    if theirs is None:
        return True
    try:
        value = ast.literal_eval(theirs)
    except ValueError:
        return ours is not inspect.Parameter.empty
    return bool(ours == value) or (not ours and not value and ours is not False)


def _shown(argument: str, default: str | None) -> str:
    return argument if default is None else f"{argument}={default}"


if __name__ == "__main__":
    lines = [
        f"{json.dumps(name)}: {json.dumps(entry)}"
        for name, entry in extract([Path(argument) for argument in sys.argv[1:]]).items()
    ]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
