"""Shapes in Einstein notation."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Extent, Shape


def output_shape(equation: str, shapes: Sequence[Shape]) -> Shape:
    """The shape of ``np.einsum(equation, ...)``.

    Args:
        equation: "abc,cd->abd"; spaces do not matter.
        shapes: of the operands.

    Raises:
        SpecError: the equation does not fit the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(shapes):
        raise SpecError(f"the equation {equation!r} does not fit {len(shapes)} operands")
    extents: dict[str, Extent] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            raise SpecError(
                f"{term!r} in {equation!r} does not fit an operand of {len(shape)} axes"
            )
        for letter, extent in zip(term, shape, strict=True):
            known = extents.get(letter)
            if None not in (known, extent) and 1 not in (known, extent) and known != extent:
                raise SpecError(f"axis {letter!r} of {equation!r} is {known} and {extent}")
            if known is None or known == 1:
                extents[letter] = extent
    missing = [letter for letter in right if letter not in extents]
    if missing:
        raise SpecError(f"axis {missing[0]!r} of {equation!r} is in no operand")
    return tuple(extents[letter] for letter in right)
