"""Colours of images: hue, saturation and contrast."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import valuewise
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import SOURCE, Blob, Constant, Operand

_ZERO = Constant("", np.float32(0))


def _line(context: Lowering, x: Blob, scale: float, shift: float = 0.0) -> Blob:
    return valuewise(context, "activation", x, linear={"alpha": scale, "beta": shift})


def _channels(context: Lowering, x: Blob) -> tuple[Blob, ...]:
    return context.outputs(3, "splitND", x, layout=SOURCE, axis=-1, numSplits=3)


def _joined(context: Lowering, *parts: Blob) -> Blob:
    return context.layer("concatND", *parts, layout=SOURCE, axis=-1)


def _to_hsv(context: Lowering, x: Blob) -> tuple[Blob, Blob, Blob]:
    """Hue, saturation and value, of colours along the last axis; the hue of grey is 0."""
    red, green, blue = _channels(context, x)
    value = context.layer("reduceMax", x, layout=SOURCE, axes=(-1,), keepDims=True)
    least = context.layer("reduceMin", x, layout=SOURCE, axes=(-1,), keepDims=True)
    span = joint(context, "subtractBroadcastable", value, least)
    saturation = _or_zero(context, value, joint(context, "divideBroadcastable", span, value))

    def sector(first: Blob, second: Blob, start: int) -> Blob:
        gap = joint(context, "subtractBroadcastable", first, second)
        return _line(context, joint(context, "divideBroadcastable", gap, span), 1 / 6, start / 6)

    is_red, is_green = (joint(context, "equal", part, value) for part in (red, green))
    hue = joint(
        context, "whereBroadcastable", is_green, sector(blue, red, 2), sector(red, green, 4)
    )
    hue = joint(context, "whereBroadcastable", is_red, sector(green, blue, 0), hue)
    return _turned(context, _or_zero(context, span, hue)), saturation, value


def _or_zero(context: Lowering, guard: Blob, x: Blob) -> Blob:
    """0 where the guard is not positive."""
    positive = valuewise(context, "greaterThan", guard, alpha=0.0)
    return joint(context, "whereBroadcastable", positive, x, _ZERO)


def _turned(context: Lowering, hue: Blob) -> Blob:
    """A hue of one turn more where it is negative."""
    below = valuewise(context, "lessThan", hue, alpha=0.0)
    return joint(context, "addBroadcastable", hue, below)


def _to_rgb(context: Lowering, hue: Blob, saturation: Blob, value: Blob) -> Blob:
    """The inverse of `_to_hsv`."""
    white = joint(context, "multiplyBroadcastable", _line(context, saturation, -1.0, 1.0), value)
    colour = joint(context, "multiplyBroadcastable", saturation, value)
    parts = []
    for middle, scale, shift in ((3, 1.0, -1.0), (2, -1.0, 2.0), (4, -1.0, 2.0)):
        distance = valuewise(context, "unary", _line(context, hue, 6.0, -middle), type="ABS")
        share = valuewise(
            context, "clip", _line(context, distance, scale, shift), minVal=0.0, maxVal=1.0
        )
        tinted = joint(context, "multiplyBroadcastable", share, colour)
        parts.append(joint(context, "addBroadcastable", white, tinted))
    return _joined(context, *parts)


@op("RGBToHSV")
def rgb_to_hsv(context: Lowering, node: Node, x: Blob) -> Blob:
    return _joined(context, *_to_hsv(context, x))


@op("HSVToRGB")
def hsv_to_rgb(context: Lowering, node: Node, x: Blob) -> Blob:
    return _to_rgb(context, *_channels(context, x))


@op("AdjustHue", raw=True)
def adjust_hue(context: Lowering, node: Node, x: Operand, delta: Operand) -> Blob:
    """The hue turns by parts of a full turn."""
    hue, saturation, value = _to_hsv(context, source(context, x))
    moved = joint(context, "addBroadcastable", hue, delta)
    hue_after = joint(context, "modBroadcastable", moved, Constant("", np.float32(1)))
    return _to_rgb(context, hue_after, saturation, value)


@op("AdjustSaturation", raw=True)
def adjust_saturation(context: Lowering, node: Node, x: Operand, scale: Operand) -> Blob:
    hue, saturation, value = _to_hsv(context, source(context, x))
    scaled = joint(context, "multiplyBroadcastable", saturation, scale)
    return _to_rgb(context, hue, valuewise(context, "clip", scaled, minVal=0.0, maxVal=1.0), value)


@op("AdjustContrastv2", raw=True)
def adjust_contrast(context: Lowering, node: Node, x: Operand, factor: Operand) -> Blob:
    """What differs from the mean of its channel, times a factor."""
    blob = source(context, x)
    mean = context.layer("reduceMean", blob, layout=SOURCE, axes=(-3, -2), keepDims=True)
    gap = joint(context, "subtractBroadcastable", blob, mean)
    return joint(
        context, "addBroadcastable", joint(context, "multiplyBroadcastable", gap, factor), mean
    )
