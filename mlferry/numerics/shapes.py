"""Shapes with extents that may be unknown, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from numpy.typing import NDArray

from mlferry.errors import SpecError

T = TypeVar("T")
Array = NDArray[Any]
Extent = int | None
Shape = tuple[Extent, ...]
Axes = int | Sequence[int] | None  # one axis, several, or all
Sizes = int | Sequence[int]  # one number for all axes, or one for each axis

_MOST_PARTS = 1 << 16


def need_rank(shape: Shape, least: int, what: str = "input", *, most: int | None = None) -> None:
    """Raise a `SpecError` if a shape has fewer than `least` axes, or more than `most`."""
    if len(shape) < least:
        raise SpecError(f"{what} of shape {show(shape)} needs at least {least} axes")
    if most is not None and len(shape) > most:
        raise SpecError(f"{what} of shape {show(shape)} may have {most} axes at most")


def axis_of(axis: int, rank: int) -> int:
    """A negative or positive axis as a positive one.

    Raises:
        SpecError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} does not exist in a blob of rank {rank}")
    return axis % rank


def number_of_parts(count: int) -> int:
    """`count`, if an array of unknown extent is split into this many parts.

    Raises:
        SpecError: there are more than any array is split into; a list of them would fill memory.
    """
    if count > _MOST_PARTS:
        raise SpecError(f"it is split into {count} parts; at most {_MOST_PARTS} are possible")
    return count


def product(extents: Iterable[Extent]) -> Extent:
    """The product, or None if a factor is unknown."""
    result = 1
    for extent in extents:
        if extent is None:
            return None
        result *= extent
    return result


def total(extents: Iterable[Extent]) -> Extent:
    """The sum, or None if a term is unknown."""
    result = 0
    for extent in extents:
        if extent is None:
            return None
        result += extent
    return result


def runs(extents: Iterable[int | T]) -> list[list[int] | T]:
    """Extents with numbers that stand next to each other in lists."""
    parts: list[list[int] | T] = []
    for extent in extents:
        if not isinstance(extent, int):
            parts.append(extent)
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(extent)
        else:
            parts.append([extent])
    return parts


def broadcast(*shapes: Shape) -> Shape:
    """The shape after NumPy-style broadcasting.

    Raises:
        SpecError: two extents differ and neither is 1.
    """
    rank = max(map(len, shapes))
    result: list[Extent] = []
    for axis in range(-rank, 0):
        extents = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        known = extents - {None}
        if len(known) > 1:
            raise SpecError(f"shapes {', '.join(map(show, shapes))} do not broadcast")
        result.append(known.pop() if known else None if extents else 1)
    return tuple(result)


def in_common(one: Shape | None, other: Shape | None) -> Shape | None:
    """What two shapes of one value have in common; None if not even the rank is."""
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def replaced(shape: Shape, axis: int, extent: Extent) -> Shape:
    """`shape` with another extent at `axis`."""
    axis = axis_of(axis, len(shape))
    return (*shape[:axis], extent, *shape[axis + 1 :])


def show(shape: Sequence[Any] | None) -> str:
    """A shape as text: ``(1, ?, 3)``."""
    if shape is None:
        return "unknown"
    inside = ", ".join("?" if extent is None else str(extent) for extent in shape)
    return f"({inside},)" if len(shape) == 1 else f"({inside})"
