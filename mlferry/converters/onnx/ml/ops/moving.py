"""Ordinary ops that only move features, so that they need no model.

A converter returns None if its op computes something; it becomes part of a network then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.onnx.ml.flow import Flow
from mlferry.converters.onnx.ml.ops.numbers import columns_of
from mlferry.converters.onnx.ml.registry import move
from mlferry.converters.onnx.ml.values import (
    Cell,
    Held,
    Known,
    Label,
    Parts,
    Pending,
    Row,
    Scores,
    column,
    joined,
    pieces,
    reshaped,
    resolved,
    size_of,
)
from mlferry.errors import ConversionError

_FLOATS, _STRING = (1, 10, 11), 8


@move("Constant")
def constant(flow: Flow, node: Node) -> Held | None:
    """A tensor in a node."""
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in node.attrs:
            array = np.asarray(node.attrs[name])
            flow.constants[node.outputs[0].name] = array
            return Known(array)
    return None


@move("Identity")
def identity(flow: Flow, node: Node, x: Held) -> Held | None:
    """The same value."""
    return None if isinstance(x, Pending | Known) else x


@move("Cast")
def cast(flow: Flow, node: Node, x: Held) -> Held | None:
    """Labels and scores stay as they are, and so do numbers that fit the wanted type."""
    to = node.attrs.as_dict().get("to")
    if isinstance(x, Label):
        labels = x.classes.labels
        texts = isinstance(labels[0], str)
        exact = texts or all(abs(int(label)) <= 2**24 for label in labels)
        if texts == (to == _STRING) and (texts or to in (6, 7) or (to in (1, 11) and exact)):
            return x
        raise ConversionError("it casts the label of a classifier to another type")
    if isinstance(x, Scores) and to in _FLOATS:
        return x
    if not isinstance(x, Row | Cell | Parts):
        return None
    kinds = {_held(part) for part in pieces(x)}
    if to == _STRING or "string" in kinds:
        if to == _STRING and kinds == {"string"}:
            return x
        raise ConversionError("it casts between texts and numbers; Core ML has no model for that")
    stays = (
        (kinds <= {"integer"} and to in (*_FLOATS, 6, 7))
        or (kinds <= {"integer", "float32"} and to in (1, 11))
        or (to == 11)
    )
    return x if stays else None


def _held(part: Row | Cell) -> str:
    if isinstance(part, Cell):
        # doubles are what regressors give, float32 in ONNX
        return {"int64": "integer", "double": "float32"}.get(part.kind, part.kind)
    return "integer" if part.dtype == "int32" else part.dtype


@move("Reshape")
def reshape(flow: Flow, node: Node, x: Held, shape: Held) -> Held | None:
    """The same values in another shape."""
    if not isinstance(x, Row | Cell | Parts | Label) or not isinstance(shape, Known):
        return None
    return reshaped(x, resolved(size_of(x), column(shape.array), x.shape))


@move("Flatten", "Squeeze", "Unsqueeze")
def flatten(flow: Flow, node: Node, x: Held, axes: Held | None = None) -> Held | None:
    """The same for one sample."""
    if not isinstance(x, Row | Cell | Parts | Label):
        return None
    options = node.attrs.as_dict()
    places = options.get("axes") or (column(axes.array) if isinstance(axes, Known) else None)
    shape = list(x.shape)
    if node.op == "Flatten":
        axis = options.get("axis", 1)
        before = int(np.prod(shape[:axis])) if axis else 1
        return reshaped(x, (before, size_of(x) // before))
    if places is None:
        return None if node.op == "Unsqueeze" else reshaped(x, tuple(n for n in shape if n != 1))
    if node.op == "Squeeze":
        dropped = {a % len(shape) for a in places}
        return reshaped(x, tuple(n for i, n in enumerate(shape) if i not in dropped))
    rank = len(shape) + len(places)
    for axis in sorted(a % rank for a in places):
        shape.insert(axis, 1)
    return reshaped(x, tuple(shape))


@move("Concat")
def concat(flow: Flow, node: Node, *values: Held) -> Held | None:
    """Rows side by side along their last axis."""
    parts: list[Row | Cell] = []
    last, rank = 0, 0
    if not any(isinstance(value, Row | Cell | Parts) for value in values):
        return None
    if any(isinstance(value, Known) for value in values):
        return None
    for value in values:
        entry = flow.row(value) if isinstance(value, Pending | Scores) else value
        if not isinstance(entry, Row | Cell | Parts):
            return None
        if any(n != 1 for n in entry.shape[:-1]):
            return None
        parts += pieces(entry)
        last, rank = last + entry.shape[-1], max(rank, len(entry.shape))
    if node.attrs.as_dict().get("axis") not in (-1, rank - 1):
        return None
    return joined(parts, (1,) * (rank - 1) + (last,))


@move("Gather")
def gather(flow: Flow, node: Node, x: Held, indices: Held) -> Held | None:
    """Columns of a sample."""
    if not isinstance(x, Row | Cell | Parts) or not isinstance(indices, Known):
        return None
    if node.attrs.as_dict().get("axis", 0) not in (1, -1) or len(x.shape) != 2:
        return None
    output = columns_of(flow, x, column(indices.array), node)
    return reshaped(output, (1, *indices.array.shape))


def _neutral(number: float) -> Any:
    def same(flow: Flow, node: Node, *values: Held) -> Held | None:
        """Scores times 1, or plus 0, stay scores."""
        scores = [value for value in values if isinstance(value, Scores)]
        others = [value for value in values if isinstance(value, Known)]
        if len(scores) != 1 or len(others) != 1 or len(values) != 2:
            return None
        if node.op in ("Div", "Sub") and values[0] is not scores[0]:
            return None
        return scores[0] if (others[0].array == number).all() else None

    return same


move("Mul", "Div")(_neutral(1.0))
move("Add", "Sub")(_neutral(0.0))
