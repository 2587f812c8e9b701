"""Layers whose output has the shape of another blob."""

from __future__ import annotations

from mlferry.layers.params import Params
from mlferry.layers.writers import V, Writer, in_both


@in_both("copy")
def copy(writer: Writer[V], params: Params, x: V) -> V:
    return x


@in_both("reshapeLike")
def reshape_like(writer: Writer[V], params: Params, x: V, like: V) -> V:
    return writer.reshape(x, writer.extents(like))
