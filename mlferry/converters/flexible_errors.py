"""Whether a size that varies is why a model cannot be converted: it is tried with a fixed one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mlferry.converters.interface import InputType
from mlferry.converters.types import EnumeratedShapes, ImageType, RangeDim, TensorType
from mlferry.errors import ConversionError


def fixed(inputs: Sequence[InputType] | None) -> list[InputType] | None:
    """The same inputs of their described sizes; None where none of them varies."""
    results = [_fixed(wanted) for wanted in inputs or ()]
    return results if results != list(inputs or ()) else None


def _fixed(wanted: InputType) -> InputType:
    if not isinstance(wanted, TensorType | ImageType):  # the binding of the inputs says so
        return wanted
    shape = wanted.shape
    if isinstance(shape, EnumeratedShapes):
        return replace(wanted, shape=shape.ordered()[0])
    if shape is None or not any(isinstance(n, RangeDim) for n in shape):
        return wanted
    return replace(
        wanted,
        shape=tuple((n.default or n.lower_bound) if isinstance(n, RangeDim) else n for n in shape),
    )


def explained(
    error: ConversionError, inputs: Sequence[InputType], convert: Callable[[], Any]
) -> ConversionError:
    """The error with what to type, where the model converts with fixed sizes.

    Args:
        error: of the conversion with sizes that vary.
        inputs: those with fixed sizes.
        convert: converts with them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert()
    except Exception:
        return error  # it has another cause
    shown = ", ".join(_shown(wanted) for wanted in inputs)
    return ConversionError(
        f"{error}\nthe size that varies is the cause: with a fixed one it converts, "
        f"inputs=[{shown}]"
    )


def _shown(wanted: InputType) -> str:
    name = "" if wanted.name is None else f"name={wanted.name!r}, "
    shape = "" if wanted.shape is None else f"shape={wanted.shape!r}"
    return f"mlferry.{type(wanted).__name__}({name}{shape})"
