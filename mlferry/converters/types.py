"""How users describe inputs and outputs; the names are those of coremltools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mlferry.errors import ConversionError, ModelFileError
from mlferry.spec.features import ARRAY_TYPES, COLOR_SPACES

Numbers = float | Sequence[float]


@dataclass(frozen=True)
class RangeDim:
    """An extent that may vary, from `lower_bound` to `upper_bound` (-1: without bound)."""

    lower_bound: int = 1
    upper_bound: int = -1
    default: int | None = None
    symbol: str | None = None  # coremltools' name for the extent; a file holds none

    def __post_init__(self) -> None:
        bounded = self.upper_bound >= 0
        if self.lower_bound < 1 or (bounded and self.upper_bound < self.lower_bound):
            raise ConversionError(f"{self}: bounds are positive, the upper one not below")
        default = self.lower_bound if self.default is None else self.default
        if default < self.lower_bound or (bounded and default > self.upper_bound):
            raise ConversionError(f"{self}: the default lies outside the bounds")


@dataclass(frozen=True)
class EnumeratedShapes:
    """A set of shapes, from which a user of the model chooses.

    Attributes:
        shapes: in the source's order of axes, batch included; all of one rank.
        default: one of them; by default the first.
    """

    shapes: Sequence[Sequence[int]]
    default: Sequence[int] | None = None

    def __post_init__(self) -> None:
        results = [tuple(shape) for shape in self.shapes]
        extents = [n for shape in results for n in shape]
        if not results or any(not isinstance(n, int) or n < 1 for n in extents):
            raise ConversionError(f"{self}: shapes are lists of positive integers")
        if len({len(shape) for shape in results}) > 1:
            raise ConversionError(f"{self}: shapes of several ranks")
        if self.default is not None and tuple(self.default) not in results:
            raise ConversionError(f"{self}: the default is not one of the shapes")

    def ordered(self) -> list[tuple[int, ...]]:
        """The shapes without repetition, the default first."""
        default = [] if self.default is None else [tuple(self.default)]
        return list(dict.fromkeys([*default, *(tuple(shape) for shape in self.shapes)]))


class Shape(tuple[int | RangeDim, ...]):
    """A shape in coremltools' form: its extents, in the source's order, including the batch.

    Args:
        shape: the extents; one may be a `RangeDim`.
        default: the extents that the model is described with; by default the ranges' own.

    Raises:
        ConversionError: the default does not fit the extents.
    """

    def __new__(
        cls, shape: Sequence[int | RangeDim], default: Sequence[int] | None = None
    ) -> Shape:
        """The extents, with the default in the ranges."""
        chosen = shape if default is None else default
        if len(chosen) != len(shape):
            raise ConversionError(f"{len(shape)} extents, and {len(chosen)} in the default")
        return super().__new__(cls, map(_extent, shape, chosen))


def _extent(extent: int | RangeDim, default: int | RangeDim) -> int | RangeDim:
    if isinstance(extent, RangeDim) and not isinstance(default, RangeDim):
        return replace(extent, default=default)
    if default != extent:
        raise ConversionError(f"the extent {extent} has the default {default}")
    return extent


def extents(shape: Sequence[int | RangeDim] | EnumeratedShapes) -> tuple[int | None, ...]:
    """The extents of a shape, with None for those that may vary."""
    if isinstance(shape, EnumeratedShapes):
        columns = zip(*shape.ordered(), strict=True)
        return tuple(column[0] if len(set(column)) == 1 else None for column in columns)
    return tuple(None if isinstance(n, RangeDim) else n for n in shape)


@dataclass(frozen=True)
class TensorType:
    """A multi-array input or output.

    Attributes:
        name: of the input; may be omitted if the model has one.
        shape: in the source's order of axes, batch included; an extent may be a `RangeDim`, or
            the whole an `EnumeratedShapes`.
        dtype: "float32", "float64", "int32" or "float16", or NumPy's type; by default the
            source's.
        value: what the input is for good: it is not an input of the model then, and what depends on
            it alone is computed while converting. A number, or an array of the input's shape.
    """

    name: str | None = None
    shape: Sequence[int | RangeDim] | EnumeratedShapes | None = None
    dtype: Any = None
    value: ArrayLike | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and not isinstance(self.dtype, str):
            object.__setattr__(self, "dtype", _type_name(self.dtype))
        if self.dtype is not None and self.dtype not in ARRAY_TYPES:
            known = ", ".join(ARRAY_TYPES)
            raise ConversionError(f"dtype {self.dtype!r} is not one of {known}")


def _type_name(dtype: DTypeLike) -> str:
    """NumPy's name of a type."""
    try:
        return str(np.dtype(dtype).name)
    except TypeError as error:
        raise ConversionError(f"dtype {dtype!r} is not a type of numbers: {error}") from error


@dataclass(frozen=True)
class ImageType:
    """An image input. The network receives ``scale * pixel + bias``, with pixels from 0 to 255.

    Attributes:
        name: of the input; may be omitted if the model has one.
        shape: in the source's order of axes, batch included; by default the source's. Height and
            width may be `RangeDim`s, or the whole an `EnumeratedShapes`.
        scale: one number, or one per channel in the order of `color_layout`.
        bias: one number, or one per channel in the order of `color_layout`; added after scaling.
        color_layout: "RGB", "BGR" or "GRAYSCALE"; by default by the number of channels.
        channel_first: whether the source takes [N, C, H, W]; by default the source's own.
    """

    name: str | None = None
    shape: Sequence[int | RangeDim] | EnumeratedShapes | None = None
    scale: Numbers = 1.0
    bias: Numbers | None = None
    color_layout: str | None = None
    channel_first: bool | None = None

    def __post_init__(self) -> None:
        if self.color_layout is not None:
            # a value of ColorLayout is text; "G" is coremltools' short form
            name = str.__str__(getattr(self.color_layout, "value", self.color_layout))
            long = {"G": "GRAYSCALE", "G_FLOAT16": "GRAYSCALE_FLOAT16"}.get(name, name)
            object.__setattr__(self, "color_layout", long)
        if self.color_layout is not None and self.color_layout not in COLOR_SPACES:
            known = ", ".join(COLOR_SPACES)
            raise ConversionError(f"color_layout {self.color_layout!r} is not one of {known}")


@dataclass(frozen=True)
class ClassifierConfig:
    """Makes the model a classifier.

    Attributes:
        class_labels: the labels in the order of the probabilities, or the path of a file with one
            on each line.
        predicted_feature_name: of the output with the likeliest label.
        predicted_probabilities_output: the output that holds the probabilities; by default
            the only one.
    """

    class_labels: Sequence[str] | Sequence[int] | str | Path = field(default_factory=list)
    predicted_feature_name: str = "classLabel"
    predicted_probabilities_output: str | None = None

    def labels(self) -> list[str] | list[int]:
        """The labels themselves.

        Raises:
            ModelFileError: the file cannot be read.
            ConversionError: there are no labels, or they are neither all text nor all integers.
        """
        if isinstance(self.class_labels, str | Path):
            try:
                text = Path(self.class_labels).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ModelFileError(
                    f"cannot read the class labels {self.class_labels}: {error}"
                ) from error
            results: list[Any] = [line.strip() for line in text.splitlines()]
            while results and not results[-1]:
                results.pop()
        else:
            results = list(self.class_labels)
        texts = all(isinstance(label, str) for label in results)
        integers = all(isinstance(label, int) and not isinstance(label, bool) for label in results)
        if not results or not (texts or integers):
            raise ConversionError(
                "class_labels is a list of str or of int, or the path of a file with one per line"
            )
        return results
