"""Layers whose output has the shape of another blob, and fixed ranges."""

from __future__ import annotations

import numpy as np

from mlferry.layers.dynamic.definition import steps
from mlferry.layers.params import Params
from mlferry.layers.writers import V, Writer, in_both


@in_both("copy")
def copy(writer: Writer[V], params: Params, x: V) -> V:
    return x


@in_both("reshapeLike")
def reshape_like(writer: Writer[V], params: Params, x: V, like: V) -> V:
    return writer.reshape(x, writer.extents(like))


@in_both("rangeStatic")
def range_static(writer: Writer[V], params: Params, *unread: V) -> V:
    count = steps(params.startValue, params.endValue, params.stepSizeValue)
    start, step = np.float32(params.startValue), np.float32(params.stepSizeValue)
    return writer.constant(start + step * np.arange(count, dtype=np.float32))
