"""Upsampling and resizing of height and width."""

from __future__ import annotations

from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Shape, need_rank, rule


@rule("upsample")
def upsample(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    factors = p.fractionalScalingFactor or p.scalingFactor
    spatial = (
        None if size is None else int(size * factor)
        for size, factor in zip(shape[-2:], factors, strict=True)
    )
    return [(*shape[:-2], *spatial)]


@rule("resizeBilinear")
def resize_bilinear(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [(*shape[:-2], *p.targetSize)]
