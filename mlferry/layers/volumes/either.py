"""Sizes of transposed convolutions of volumes."""

from __future__ import annotations

from mlferry.layers.params import Params
from mlferry.layers.volumes.definition import convolved, custom_edges, spans_of, triple
from mlferry.numerics.shapes import Shape
from mlferry.refusals import refuse


def transposed_sizes(params: Params, sizes: Shape) -> tuple[Shape, Shape, list[tuple[int, int]]]:
    """The sizes of the full result and of the output, and what is cut off before the latter."""
    full = tuple(
        None if size is None else (size - 1) * stride + span
        for size, stride, span in zip(
            sizes, triple(params, "stride"), spans_of(params), strict=True
        )
    )
    target, edges = convolved(params, sizes), custom_edges(params)
    if params.paddingType == "SAME" or (params.outputShape and not any(map(any, edges))):
        if None in full:
            raise refuse("SAME padding or outputShape for a volume whose size is not known")
        pairs = zip(full, target, strict=True)
        edges = [(max(0, (whole or 0) - (part or 0)) // 2, 0) for whole, part in pairs]
    return full, target, edges
