"""Colours of images: hue, saturation and contrast."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import Blob, Constant, Operand

_ZERO = Constant("", np.float32(0))


def _to_hsv(context: Lowering, x: Blob) -> tuple[Blob, Blob, Blob]:
    """Hue, saturation and value of colours along the last axis; the hue of grey is 0."""
    hue, value, _, span = _to_ranges(context, x)
    return hue, _or_zero(context, value, context.divide(span, value)), value


def _to_ranges(context: Lowering, x: Blob) -> tuple[Blob, Blob, Blob, Blob]:
    """The hue of colours along the last axis, their largest and least parts, and the difference."""
    red, green, blue = context.split(x, 3, -1)
    value = context.reduce("reduceMax", x, (-1,))
    least = context.reduce("reduceMin", x, (-1,))
    span = context.subtract(value, least)

    def sector(first: Blob, second: Blob, start: int) -> Blob:
        gap = context.subtract(first, second)
        return affine(context, context.divide(gap, span), 1 / 6, start / 6)

    is_red, is_green = (context.emit("equal", part, value) for part in (red, green))
    hue = context.where(is_green, sector(blue, red, 2), sector(red, green, 4))
    hue = context.where(is_red, sector(green, blue, 0), hue)
    return _turned(context, _or_zero(context, span, hue)), value, least, span


def _or_zero(context: Lowering, guard: Blob, x: Blob) -> Blob:
    """The value if the guard is positive, else 0."""
    positive = context.emit("greaterThan", guard, alpha=0.0)
    return joint(context, "whereBroadcastable", positive, x, _ZERO)


def _turned(context: Lowering, hue: Blob) -> Blob:
    """A hue, plus one turn if it is negative."""
    below = context.emit("lessThan", hue, alpha=0.0)
    return context.add(hue, below)


def _to_rgb(context: Lowering, hue: Blob, saturation: Blob, value: Blob) -> Blob:
    """The inverse of `_to_hsv`."""
    white = context.multiply(affine(context, saturation, -1.0, 1.0), value)
    return _tinted(context, hue, white, context.multiply(saturation, value))


def _tinted(context: Lowering, hue: Blob, white: Blob, colour: Blob) -> Blob:
    """White with so much of a hue's colour."""
    parts = []
    for middle, scale, shift in ((3, 1.0, -1.0), (2, -1.0, 2.0), (4, -1.0, 2.0)):
        distance = context.emit("unary", affine(context, hue, 6.0, -middle), type="ABS")
        share = context.emit(
            "clip", affine(context, distance, scale, shift), minVal=0.0, maxVal=1.0
        )
        tinted = context.multiply(share, colour)
        parts.append(context.add(white, tinted))
    return context.concat(parts, -1)


@op("RGBToHSV")
def rgb_to_hsv(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.concat(_to_hsv(context, x), -1)


@op("HSVToRGB")
def hsv_to_rgb(context: Lowering, node: Node, x: Blob) -> Blob:
    return _to_rgb(context, *context.split(x, 3, -1))


@op("AdjustHue", raw=True)
def adjust_hue(context: Lowering, node: Node, x: Operand, delta: Operand) -> Blob:
    """Turns the hue by a fraction of a full turn; negative colours have one, too."""
    hue, _, least, span = _to_ranges(context, source(context, x))
    moved = joint(context, "addBroadcastable", hue, delta)
    hue_after = joint(context, "modBroadcastable", moved, Constant("", np.float32(1)))
    return _tinted(context, hue_after, least, span)


@op("AdjustSaturation", raw=True)
def adjust_saturation(context: Lowering, node: Node, x: Operand, scale: Operand) -> Blob:
    hue, saturation, value = _to_hsv(context, source(context, x))
    scaled = joint(context, "multiplyBroadcastable", saturation, scale)
    return _to_rgb(context, hue, context.emit("clip", scaled, minVal=0.0, maxVal=1.0), value)


@op("AdjustContrastv2", raw=True)
def adjust_contrast(context: Lowering, node: Node, x: Operand, factor: Operand) -> Blob:
    """Multiplies the distance from the mean of the channel."""
    blob = source(context, x)
    mean = context.reduce("reduceMean", blob, (-3, -2))
    gap = context.subtract(blob, mean)
    return joint(
        context, "addBroadcastable", joint(context, "multiplyBroadcastable", gap, factor), mean
    )
