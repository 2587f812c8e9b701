"""What both formats write alike of convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.numerics import windows
from mlferry.numerics.shapes import Shape
from mlferry.refusals import refuse

Edges = Sequence[windows.Edges]
LOWEST = float(np.finfo(np.float32).min)


def cut_and_added(
    full: Shape, target: Shape, edges: Edges | None
) -> tuple[list[windows.Edges], list[int]]:
    """How much to cut off the full result before and after each axis, or to add after it.

    What is cut off in front is given; the rest follows from the sizes.

    Raises:
        CannotExpressError: it is not known.
    """
    if edges is None:
        raise refuse("outputShape for an input whose size is not known")
    cuts, added = [], []
    for (begin, end), size, goal in zip(edges, full, target, strict=True):
        behind = end if size is None or goal is None else size - begin - goal
        cuts.append((begin, max(0, behind)))
        added.append(max(0, -behind))
    return cuts, added


def within_kernels(kind: str, edges: Edges, spans: Sequence[int], *, exclude: bool) -> float | None:
    """What to pad with before pooling if padding is as wide as the kernel, else None.

    Raises:
        CannotExpressError: an average leaves out such padding.
    """
    if all(max(edge) < span for edge, span in zip(edges, spans, strict=True)):
        return None
    if exclude:
        raise refuse("padding as wide as the kernel, which the average leaves out")
    return LOWEST if kind == "MAX" else 0
