"""Padding and output extents of sliding windows: convolution, pooling, padding, cropping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.errors import SpecError
from mlferry.numerics.shapes import Array, Extent

Edges = tuple[int, int]


def spans_of(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """How far a kernel with dilations reaches along each axis."""
    return [(extent - 1) * d + 1 for extent, d in zip(kernel, dilations, strict=True)]


def same_edges(size: Extent, span: int, stride: int, mode: str = "BOTTOM_RIGHT_HEAVY") -> Edges:
    """SAME padding of one axis: the output has ``ceil(size / stride)`` entries.

    BOTTOM_RIGHT_HEAVY puts an odd pixel at the end, TOP_LEFT_HEAVY at the start.
    """
    if size is None:
        raise SpecError("SAME padding of a flexible extent is known only at run time")
    out = -(-size // stride)
    excess = max(0, (out - 1) * stride + span - size)
    small, large = excess // 2, excess - excess // 2
    return (large, small) if mode == "TOP_LEFT_HEAVY" else (small, large)


def slide(size: Extent, span: int, stride: int, edges: Edges) -> Extent:
    """How many windows of `span` fit into a padded axis."""
    if size is None:
        return None
    room = size + sum(edges) - span
    if room < 0:
        raise SpecError(f"a window of {span} does not fit into {size + sum(edges)}")
    return room // stride + 1


def spread(size: Extent, span: int, stride: int, edges: Edges) -> Extent:
    """The extent of a transposed convolution, reduced by its padding."""
    if size is None:
        return None
    full = (size - 1) * stride + span
    if full <= sum(edges):
        raise SpecError(f"nothing is left of {full} after cutting {sum(edges)}")
    return full - sum(edges)


def slide_same(size: Extent, stride: int) -> Extent:
    """The number of windows with SAME padding."""
    return None if size is None else -(-size // stride)


def slide_complete(size: Extent, span: int, stride: int, edges: Edges) -> Extent:
    """The number of windows, rounded up; but none starts in the padding at the end."""
    if size is None or slide(size, span, stride, edges) is None:
        return None
    count = -(-(size + sum(edges) - span) // stride) + 1
    return count - 1 if (count - 1) * stride >= size + edges[0] else count


def dilated(kernel: Array, dilations: Sequence[int]) -> Array:
    """A kernel with zeros between its entries, for use with a dilation of 1.

    Transposed convolutions need it: according to the format's comments, devices ignore their
    dilation.

    Args:
        kernel: [a, b, *spatial].
        dilations: one per axis of `spatial`.
    """
    if all(d == 1 for d in dilations):
        return kernel
    spans = spans_of(kernel.shape[2:], dilations)
    wide = np.zeros((*kernel.shape[:2], *spans), kernel.dtype)
    place = (slice(None), slice(None), *(slice(None, None, d) for d in dilations))
    wide[place] = kernel
    return wide
