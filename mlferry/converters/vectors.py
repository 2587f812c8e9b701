"""Products of vectors, for all frontends."""

from __future__ import annotations

from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SOURCE, Blob


def cross_product(context: Lowering, left: Blob, right: Blob) -> Blob:
    """The cross product of 3-vectors along the source's last axis; other axes broadcast."""
    a, b = (
        context.outputs(3, "splitND", x, layout=SOURCE, axis=-1, numSplits=3) for x in (left, right)
    )
    parts = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        first = context.layer("multiplyBroadcastable", a[i], b[j], layout=SOURCE)
        second = context.layer("multiplyBroadcastable", a[j], b[i], layout=SOURCE)
        parts.append(context.layer("subtractBroadcastable", first, second, layout=SOURCE))
    return context.layer("concatND", *parts, layout=SOURCE, axis=-1)
