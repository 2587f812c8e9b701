"""The registry of shape rules and the arithmetic that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlferry.errors import SpecError
from mlferry.registry import Registry
from mlferry.spec.params import Params

Extent = int | None
Shape = tuple[Extent, ...]
Rule = Callable[..., list[Shape]]

SHAPES: Registry[Rule] = Registry("shape rule")
rule = SHAPES.register


@dataclass(frozen=True)
class Change:
    """The inputs of a layer at the described sizes, and at others.

    Attributes:
        before: shapes at the described sizes.
        now: shapes at the others; of the same ranks.
        constant: which inputs are the same at all sizes.
        recorded: whether the converter wrote down which sizes it computed with. Then a number in
            the layer is the source's own; elsewhere it may stand for a size.
    """

    before: tuple[Shape, ...]
    now: tuple[Shape, ...]
    constant: tuple[bool, ...]
    recorded: bool = False

    def varies(self, axis: int, place: int = 0) -> bool:
        """Whether an input has another extent along an axis."""
        return self.before[place][axis] != self.now[place][axis]

    def varying(self, place: int = 0) -> list[int]:
        """The axes along which an input has other extents."""
        return [axis for axis in range(len(self.now[place])) if self.varies(axis, place)]


SizeCheck = Callable[[Params, Change], str]

SIZE_CHECKS: Registry[SizeCheck] = Registry("size check")
size_check = SIZE_CHECKS.register
"""Registers what tells, of a layer kind that can be bound to one size, why it is: ``""`` where it
is not. The other kinds hold for every size that their shape rule takes."""


class RankUnknownError(Exception):
    """The number of axes of an output depends on data, or on a custom layer's class."""


def need_rank(shape: Shape, least: int, what: str = "input") -> None:
    """Raise a `SpecError` where a shape has fewer than `least` axes."""
    if len(shape) < least:
        raise SpecError(f"{what} of shape {show(shape)} needs at least {least} axes")


def axis_of(axis: int, rank: int) -> int:
    """A negative or positive axis as a positive one.

    Raises:
        SpecError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise SpecError(f"axis {axis} does not exist in a blob of rank {rank}")
    return axis % rank


def product(extents: Iterable[Extent]) -> Extent:
    """The product, or None where a factor is unknown."""
    result = 1
    for extent in extents:
        if extent is None:
            return None
        result *= extent
    return result


def total(extents: Iterable[Extent]) -> Extent:
    """The sum, or None where a term is unknown."""
    result = 0
    for extent in extents:
        if extent is None:
            return None
        result += extent
    return result


def broadcast(*shapes: Shape) -> Shape:
    """The shape that NumPy-style broadcasting gives.

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


def replaced(shape: Shape, axis: int, extent: Extent) -> Shape:
    """`shape` with another extent at `axis`."""
    axis = axis_of(axis, len(shape))
    return (*shape[:axis], extent, *shape[axis + 1 :])


def show(shape: Sequence[Any] | None) -> str:
    """A shape for people: ``(1, ?, 3)``."""
    if shape is None:
        return "unknown"
    inside = ", ".join("?" if extent is None else str(extent) for extent in shape)
    return f"({inside},)" if len(shape) == 1 else f"({inside})"
