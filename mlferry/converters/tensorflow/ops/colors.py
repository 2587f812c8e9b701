"""Colours of images: hue, saturation and contrast."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import valuewise
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import SOURCE, Blob, Constant

_ZERO = Constant("", np.float32(0))


def _line(low: Lowering, x: Blob, scale: float, shift: float = 0.0) -> Blob:
    return valuewise(low, "activation", x, linear={"alpha": scale, "beta": shift})


def _channels(low: Lowering, x: Blob) -> tuple[Blob, ...]:
    return low.outputs(3, "splitND", x, layout=SOURCE, axis=-1, numSplits=3)


def _joined(low: Lowering, *parts: Blob) -> Blob:
    return low.layer("concatND", *parts, layout=SOURCE, axis=-1)


def _to_hsv(low: Lowering, x: Blob) -> tuple[Blob, Blob, Blob]:
    """Hue, saturation and value, of colours along the last axis; the hue of grey is 0."""
    red, green, blue = _channels(low, x)
    value = low.layer("reduceMax", x, layout=SOURCE, axes=(-1,), keepDims=True)
    least = low.layer("reduceMin", x, layout=SOURCE, axes=(-1,), keepDims=True)
    span = joint(low, "subtractBroadcastable", value, least)
    saturation = _or_zero(low, value, joint(low, "divideBroadcastable", span, value))

    def sector(first: Blob, second: Blob, start: int) -> Blob:
        gap = joint(low, "subtractBroadcastable", first, second)
        return _line(low, joint(low, "divideBroadcastable", gap, span), 1 / 6, start / 6)

    is_red, is_green = (joint(low, "equal", part, value) for part in (red, green))
    hue = joint(low, "whereBroadcastable", is_green, sector(blue, red, 2), sector(red, green, 4))
    hue = joint(low, "whereBroadcastable", is_red, sector(green, blue, 0), hue)
    return _turned(low, _or_zero(low, span, hue)), saturation, value


def _or_zero(low: Lowering, guard: Blob, x: Blob) -> Blob:
    """0 where the guard is not positive."""
    positive = valuewise(low, "greaterThan", guard, alpha=0.0)
    return joint(low, "whereBroadcastable", positive, x, _ZERO)


def _turned(low: Lowering, hue: Blob) -> Blob:
    """A hue of one turn more where it is negative."""
    below = valuewise(low, "lessThan", hue, alpha=0.0)
    return joint(low, "addBroadcastable", hue, below)


def _to_rgb(low: Lowering, hue: Blob, saturation: Blob, value: Blob) -> Blob:
    """The inverse of `_to_hsv`."""
    white = joint(low, "multiplyBroadcastable", _line(low, saturation, -1.0, 1.0), value)
    colour = joint(low, "multiplyBroadcastable", saturation, value)
    parts = []
    for middle, scale, shift in ((3, 1.0, -1.0), (2, -1.0, 2.0), (4, -1.0, 2.0)):
        distance = valuewise(low, "unary", _line(low, hue, 6.0, -middle), type="ABS")
        share = valuewise(low, "clip", _line(low, distance, scale, shift), minVal=0.0, maxVal=1.0)
        tinted = joint(low, "multiplyBroadcastable", share, colour)
        parts.append(joint(low, "addBroadcastable", white, tinted))
    return _joined(low, *parts)


@op("RGBToHSV")
def rgb_to_hsv(low: Lowering, node: Node, x: Blob) -> Blob:
    return _joined(low, *_to_hsv(low, x))


@op("HSVToRGB")
def hsv_to_rgb(low: Lowering, node: Node, x: Blob) -> Blob:
    return _to_rgb(low, *_channels(low, x))


@op("AdjustHue", raw=True)
def adjust_hue(low: Lowering, node: Node, x: Any, delta: Any) -> Blob:
    """The hue turns by parts of a full turn."""
    hue, saturation, value = _to_hsv(low, source(low, x))
    moved = joint(low, "addBroadcastable", hue, delta)
    turned = joint(low, "modBroadcastable", moved, Constant("", np.float32(1)))
    return _to_rgb(low, turned, saturation, value)


@op("AdjustSaturation", raw=True)
def adjust_saturation(low: Lowering, node: Node, x: Any, scale: Any) -> Blob:
    hue, saturation, value = _to_hsv(low, source(low, x))
    scaled = joint(low, "multiplyBroadcastable", saturation, scale)
    return _to_rgb(low, hue, valuewise(low, "clip", scaled, minVal=0.0, maxVal=1.0), value)


@op("AdjustContrastv2", raw=True)
def adjust_contrast(low: Lowering, node: Node, x: Any, factor: Any) -> Blob:
    """What differs from the mean of its channel, times a factor."""
    given = source(low, x)
    mean = low.layer("reduceMean", given, layout=SOURCE, axes=(-3, -2), keepDims=True)
    gap = joint(low, "subtractBroadcastable", given, mean)
    return joint(low, "addBroadcastable", joint(low, "multiplyBroadcastable", gap, factor), mean)
