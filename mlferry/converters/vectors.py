"""Products of vectors, for all frontends."""

from __future__ import annotations

from mlferry.converters.lowering import Lowering
from mlferry.converters.values import Blob


def cross_product(context: Lowering, left: Blob, right: Blob) -> Blob:
    """The cross product of 3-vectors along the source's last axis; other axes broadcast."""
    a, b = (context.split(x, 3, -1) for x in (left, right))
    parts = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        first = context.multiply(a[i], b[j])
        second = context.multiply(a[j], b[i])
        parts.append(context.subtract(first, second))
    return context.concat(parts, -1)
