"""The output shapes of every layer kind: one function a kind.

A rule takes the layer's parameters and the shapes of its inputs and returns the shapes of its
outputs. An extent is an int, or None where it depends on data or on a flexible input. Rules
hold for both array mappings; the few kinds that differ look at `Params.rank5`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.errors import SpecError, context
from mlferry.spec.params import Params
from mlferry.spec.shapes import (  # noqa: F401 (they register their functions)
    arrays,
    control,
    convolution,
    detection,
    dynamic,
    elementwise,
    indexing,
    linear,
    normalization,
    random,
    recurrent,
    reduction,
    reshaping,
    resizing,
    slicing,
    volumes,
)
from mlferry.spec.shapes.rules import SHAPES, RankUnknownError, Shape

__all__ = ["SHAPES", "Shape", "infer"]


def infer(p: Params, shapes: Sequence[Shape | None]) -> list[Shape] | None:
    """The output shapes of a layer, or None where the shape of an input, or a rank, is unknown.

    Raises:
        SpecError: the kind has no rule, or the shapes do not fit the layer.
    """
    entry = SHAPES.find(p.kind)
    if entry is None:
        raise SpecError(f"no shape rule for layer kind {p.kind!r}")
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    with context(f"inferring the shape of {p.kind} {p.name!r}"):
        try:
            return entry.value(p, *known)
        except RankUnknownError:
            return None
        except TypeError as error:
            if "positional argument" not in str(error):
                raise
            raise SpecError(f"{len(shapes)} inputs do not fit a {p.kind} layer") from error
