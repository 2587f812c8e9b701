"""Shapes that a source leaves open: a consistent suggestion, and the error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlferry.converters.graph import Graph, Value
from mlferry.errors import OpenShapesError
from mlferry.text import paragraph

_PICTURE, _LENGTH = 224, 16
_CHANNELS = (1, 3, 4)
_BATCH = re.compile(r"^(n|b|bs|batch|.*batch_?size.*|batch_.*|.*_batch)$", re.IGNORECASE)
_TERM = re.compile(r"^\s*(?:(\d+)\s*\*\s*)?([A-Za-z_]\w*|\d+)\s*$")


def error(
    missing: Sequence[Value], graph: Graph, fixed: Mapping[str, tuple[int, ...]]
) -> OpenShapesError:
    """The error for inputs whose shapes must be given.

    Args:
        graph: whose they are.
        fixed: the shapes of the other inputs.
    """
    shapes = suggested(missing, graph, fixed)
    example = ", ".join(
        f"mlferry.TensorType(name={name!r}, shape={shape or '(1, ...)'})"
        for name, shape in shapes.items()
    )
    lines = [
        f"{graph.source} leaves shapes of inputs open:",
        *(f"  - {value.name}: {_shown(value)}" for value in missing),
        f"give them: mlferry.convert(..., inputs=[{example}]); mlferry.RangeDim(1, 512) in the "
        "place of a number lets it vary",
    ]
    return OpenShapesError(paragraph(lines), shapes)


def _shown(value: Value) -> str:
    if value.shape is None:
        return "?"
    names = value.axes or ("",) * len(value.shape)
    shown = [
        name or "?" if n is None else str(n) for n, name in zip(value.shape, names, strict=True)
    ]
    return f"({', '.join(shown)}{',' if len(shown) == 1 else ''})"


def suggested(
    missing: Sequence[Value], graph: Graph, fixed: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """A shape for each input: one sample, and equal extents for equal names of axes."""
    extents = _told(graph, fixed)
    return {value.name: tuple(_extents(value, graph, extents)) for value in missing}


def _told(graph: Graph, fixed: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Numbers for the names of axes: of inputs whose shapes are known, of batches, of pictures."""
    entries: dict[str, int] = {}
    for value in graph.inputs:
        for name, extent in zip(value.axes, fixed.get(value.name, ()), strict=False):
            if name:
                entries.setdefault(name, extent)
    for value in graph.inputs:
        for axis, name in enumerate(value.axes):
            if name and (axis == 0 or _BATCH.match(name)):
                entries.setdefault(name, 1)
    for value in graph.inputs:
        for axis, name in enumerate(value.axes):
            if name and name.isidentifier():
                entries.setdefault(name, _usual(value, axis, graph))
    return entries


def _extents(value: Value, graph: Graph, extents: Mapping[str, int]) -> list[int]:
    outputs = []
    names = value.axes or ("",) * len(value.shape or ())
    for axis, (extent, name) in enumerate(zip(value.shape or (), names, strict=True)):
        if extent is not None:
            outputs.append(extent)
        elif name in extents:
            outputs.append(extents[name])
        else:
            computed = _computed(name, extents)
            outputs.append(computed or (1 if axis == 0 else _usual(value, axis, graph)))
    return outputs


def _usual(value: Value, axis: int, graph: Graph) -> int:
    """An extent for height or width of a picture, its channels, or a length."""
    shape = value.shape or ()
    if len(shape) != 4:
        return _LENGTH
    channels = 3 if graph.channels_last else 1
    if shape[channels] not in (*_CHANNELS, None) or not value.dtype.startswith(("float", "uint8")):
        return _LENGTH
    if shape[channels] is None and any(n is not None for n in shape[1:]):
        return _LENGTH
    return 3 if axis == channels else _PICTURE


def _computed(name: str, extents: Mapping[str, int]) -> int:
    """The value of a sum that exporters write as a name, "past_length + 1"; 0 if it is not one."""
    total = 0
    for term in name.split("+"):
        match = _TERM.match(term)
        if match is None:
            return 0
        factor, base = match.groups()
        number = int(base) if base.isdigit() else extents.get(base)
        if number is None:
            return 0
        total += int(factor or 1) * number
    return total
