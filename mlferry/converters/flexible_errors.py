"""Tests whether a flexible size is why a model cannot be converted, by trying a fixed one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mlferry.converters.interface import InputType
from mlferry.converters.types import EnumeratedShapes, ImageType, RangeDim, TensorType
from mlferry.errors import ConversionError


def fixed(inputs: Sequence[InputType] | None) -> list[InputType] | None:
    """The same inputs in their default sizes; None if none of them varies."""
    results = [_fixed(kind) for kind in inputs or ()]
    return results if results != list(inputs or ()) else None


def _fixed(kind: InputType) -> InputType:
    if not isinstance(kind, TensorType | ImageType):  # the binding of the inputs says so
        return kind
    shape = kind.shape
    if isinstance(shape, EnumeratedShapes):
        return replace(kind, shape=shape.ordered()[0])
    if shape is None or not any(isinstance(n, RangeDim) for n in shape):
        return kind
    return replace(
        kind,
        shape=tuple((n.default or n.lower_bound) if isinstance(n, RangeDim) else n for n in shape),
    )


def explained(
    error: ConversionError, inputs: Sequence[InputType], convert: Callable[[], Any]
) -> ConversionError:
    """The error, with what to type if the model converts with fixed sizes.

    Args:
        error: the error of the conversion with sizes that vary.
        inputs: the inputs with fixed sizes.
        convert: converts with them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert()
    except Exception:
        return error  # it has another cause
    shown = ", ".join(_shown(kind) for kind in inputs)
    return ConversionError(
        f"{error}\nthe size that varies is the cause: with a fixed one it converts, "
        f"inputs=[{shown}]"
    )


def _shown(kind: InputType) -> str:
    name = "" if kind.name is None else f"name={kind.name!r}, "
    shape = "" if kind.shape is None else f"shape={kind.shape!r}"
    return f"mlferry.{type(kind).__name__}({name}{shape})"
