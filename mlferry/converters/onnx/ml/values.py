"""The values of an `ai.onnx.ml` graph in Core ML: features of a pipeline, for one sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

Sizes = tuple[int, ...]
Labels = Sequence[str] | Sequence[int]


@dataclass(frozen=True)
class Row:
    """A multi-array feature [size].

    Attributes:
        feature: its name.
        size: how many values.
        dtype: "float32", "float64" or "int32".
        shape: of ONNX's tensor, with one sample.
    """

    feature: str
    size: int
    dtype: str
    shape: Sizes


@dataclass(frozen=True)
class Cell:
    """One value: a feature of type int64, double or string."""

    feature: str
    kind: str
    shape: Sizes = (1, 1)


@dataclass(frozen=True)
class Parts:
    """Several features that are one tensor in ONNX."""

    parts: tuple[Row | Cell, ...]
    shape: Sizes


@dataclass(frozen=True)
class Table:
    """A dictionary feature."""

    feature: str
    string_keys: bool


@dataclass(frozen=True)
class Known:
    """A constant."""

    array: Array


@dataclass(frozen=True)
class Pending:
    """The result of ordinary ops, which become a neural network if one is needed.

    Attributes:
        name: of ONNX's value.
        shape: with one sample, if it is known.
    """

    name: str
    shape: Sizes | None


@dataclass(frozen=True)
class Classes:
    """The result of a classifier, from which its label and scores follow.

    Attributes:
        labels: of the classes.
        add_label: adds a model that gives the label: ``(labels, name of the label)``.
        scores: adds models that give the scores as a row.
        add_both: adds one model that gives both: ``(labels, name of the label, name of the
            scores' dictionary)``. None if no model of Core ML's does.
        add_scores: adds a model whose dictionary are the scores, and whose label is another:
            ``(labels, name of that label, name of the dictionary)``.
        is_distribution: whether the scores are not negative and add up to 1.
        normalized: the same with scores divided by their sum, where that is a model of its own.
        origin: the classifier that predicts the same label, and that this was made of.
    """

    labels: Labels
    add_label: Callable[[Labels, str], None]
    scores: Callable[[], Row]
    add_both: Callable[[Labels, str, str], None] | None = None
    add_scores: Callable[[Labels, str, str], None] | None = None
    is_distribution: bool = False
    normalized: Callable[[], Classes] | None = None
    origin: Classes | None = None


@dataclass(frozen=True)
class Label:
    """The label that a classifier predicts; the shape is that of ONNX's tensor."""

    classes: Classes
    shape: Sizes = (1,)


@dataclass(frozen=True)
class Scores:
    """The scores of a classifier's classes, a tensor [1, K] in ONNX."""

    classes: Classes

    @property
    def shape(self) -> Sizes:
        """With one sample."""
        return (1, len(self.classes.labels))


@dataclass(frozen=True)
class Zipped:
    """Scores with the labels as the keys of their dictionary."""

    labels: Labels
    values: Scores | Row | Parts | Pending | Cell


@dataclass(frozen=True)
class RefusedResult:
    """The result of a node that cannot be converted."""


Held = Row | Cell | Parts | Table | Known | Pending | Label | Scores | Zipped | RefusedResult


def size_of(value: Row | Cell | Parts | Label) -> int:
    """The number of values."""
    if isinstance(value, Row):
        return value.size
    return sum(map(size_of, value.parts)) if isinstance(value, Parts) else 1


def pieces(value: Row | Cell | Parts) -> tuple[Row | Cell, ...]:
    """The features that a value consists of."""
    return value.parts if isinstance(value, Parts) else (value,)


def joined(parts: Sequence[Row | Cell], shape: Sizes) -> Row | Cell | Parts:
    """Several features as one; a single feature stays as it is."""
    if len(parts) == 1:
        return replace(parts[0], shape=shape)
    return Parts(tuple(parts), shape)


def reshaped(value: Held, shape: Sizes) -> Held:
    """The same values under another shape of ONNX's."""
    return replace(value, shape=shape) if isinstance(value, Row | Cell | Parts | Label) else value


def resolved(size: int, target: Sequence[int], old: Sizes) -> Sizes:
    """The shape after a Reshape: 0 keeps an extent, -1 means the rest.

    Raises:
        ConversionError: the sizes do not fit.
    """
    shape = [old[i] if n == 0 and i < len(old) else int(n) for i, n in enumerate(target)]
    if -1 in shape:
        rest = math.prod(n for n in shape if n != -1)
        shape[shape.index(-1)] = size // rest if rest else 0
    if math.prod(shape) != size:
        raise ConversionError(f"{size} values of one sample do not have the shape {list(target)}")
    return tuple(shape)


def column(array: Array) -> list[int]:
    """The numbers of a constant as integers."""
    return [int(n) for n in np.asarray(array).ravel()]
