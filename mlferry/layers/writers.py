"""Layer kinds that are written alike in ONNX and in ML Programs, with the methods of both writers.

Such a function is in the module `either` of its family. Other kinds have a function for each
format, in the modules `onnx` and `program`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from numpy.typing import ArrayLike

from mlferry.layers.exports import OPS
from mlferry.layers.programs import PROGRAM_OPS
from mlferry.numerics.shapes import Shape

V = TypeVar("V")
F = TypeVar("F", bound=Callable[..., Any])


class Writer(Protocol[V]):
    """What the writers of both formats have in common; functions have their names in programs."""

    def constant(self, values: ArrayLike, /) -> V:
        """A constant with the values of an array."""

    def number(self, value: float) -> V:
        """One float32."""

    def as_float(self, x: V) -> V:
        """A value as float32."""

    def alike(self, *values: V) -> list[V]:
        """Values in one type."""

    def unary(self, function: str, x: V, /) -> V:
        """A function of one value."""

    def binary(self, function: str, x: V, y: V | float, /) -> V:
        """A function of two values; numbers without effect are left out."""

    def affine(self, x: V, scale: float, shift: float) -> V:
        """scale * x + shift, without operations that have no effect."""

    def matmul(self, x: V, y: V) -> V:
        """The product of matrices, which lie along the last two axes."""

    def positions(self, extent: int | V) -> V:
        """0, 1, ... below an extent, as floats."""

    def shape(self, x: V) -> Shape:
        """The shape of a value; None is an extent known only at run time."""

    def rank(self, x: V) -> int:
        """How many axes a value has."""

    def extent(self, x: V, axis: int) -> int | V:
        """The size of an axis: a number, or a vector that is computed at run time."""

    def size(self, x: V, axis: int) -> V:
        """The size of an axis, as one float."""

    def extents(self, x: V) -> list[int | V]:
        """The sizes of all axes; see `extent`."""

    def reshape(self, x: V, extents: Sequence[int | V]) -> V:
        """`x` in another shape; one extent may be -1, which means the rest."""

    def transpose(self, x: V, axes: Sequence[int]) -> V:
        """`x` with its axes in another order."""

    def expand(self, x: V, axes: Sequence[int]) -> V:
        """`x` with axes of extent 1 at places of the result."""

    def squeeze(self, x: V, axes: Sequence[int]) -> V:
        """`x` without axes of extent 1."""

    def joined(self, values: Sequence[V], axis: int) -> V:
        """Values one after another along an axis."""

    def sliced(self, x: V, axis: int, start: int, end: int) -> V:
        """Part of an axis."""


def in_both(*kinds: str, five_axes: bool = False, limits: str = "") -> Callable[[F], F]:
    """Register a function that writes layer kinds in both formats; see `exports` for options."""

    def register(function: F) -> F:
        OPS.register(*kinds, five_axes=five_axes, limits=limits)(function)
        PROGRAM_OPS.register(*kinds, five_axes=five_axes, limits=limits)(function)
        return function

    return register
