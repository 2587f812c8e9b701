"""Normalization and softmax: the shape stays."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes.rules import Shape, axis_of, broadcast, need_rank, rule, show


@rule("batchnorm")
def batchnorm(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    if shape[-3] not in (p.channels, None):
        raise SpecError(
            f"input {show(shape)} has {shape[-3]} channels, the layer takes {p.channels}"
        )
    return [shape]


@rule("lrn")
def lrn(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    if not p.localSize:
        raise SpecError("localSize, the number of channels of a window, is not set")
    return [shape]


@rule("softmax", "mvn", "l2normalize")
def across_channels(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [shape]


@rule("softmaxND")
def softmax_nd(p: Params, shape: Shape) -> list[Shape]:
    axis_of(p.axis, len(shape))
    return [shape]


@rule("layerNormalization")
def layer_normalization(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, len(p.normalizedShape))
    inner = shape[len(shape) - len(p.normalizedShape) :]
    if not p.normalizedShape or any(
        extent not in (wanted, None)
        for extent, wanted in zip(inner, p.normalizedShape, strict=True)
    ):
        raise SpecError(f"input {show(shape)} does not end in {show(p.normalizedShape)}")
    return [shape]


@rule("scale")
def scale(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    shapes = [p.shapeScale, p.shapeBias if p.hasBias else (1,)]
    return [broadcast(shape, *map(per_channel, shapes))]


@rule("bias")
def bias(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [broadcast(shape, per_channel(p.shape))]


def per_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stored shape of a scale or bias, [C] or [C, H, W], as it is broadcast."""
    return (*shape, 1, 1) if len(shape) == 1 else shape
