"""Layers that move values without computing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlferry.converters.convolutions import edges
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.convolution import as_image, dimensions_of, from_image, spatial_op
from mlferry.converters.keras.ops.registry import op
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import channels_last
from mlferry.converters.reshapes import MOST_AXES, reshaped
from mlferry.converters.sizes import use
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Blob, Layout
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import product


@op("Flatten", layouts=UNFLATTENED)
def flatten(context: Lowering, node: Node, x: Blob) -> Blob:
    """Channels-first data is flattened in its own order; its readers permute weights or values.

    Keras itself flattens channels-first models in the order of channels-last ones.
    """
    first = node.attrs.get("data_format") == "channels_first"
    if first and (x.shape is None or x.rank > 2):
        x = channels_last(context, context.source_order(x))
    if x.shape is None:
        return context.layer("flattenTo2D", x, axis=1)
    if x.rank == 2:
        return x
    shape = x.source_shape or ()
    if x.rank == 1:
        return context.reshape(x, (*shape, 1), layout=SOURCE)
    size, channels = product(shape[1:-1]), shape[-1]
    if channels is None:
        x = context.source_order(x)
    permuted = x.layout == CHANNELS_FIRST and size != 1 and channels not in (1, None)
    inner = shape[1:] if size is not None else (None, channels)
    layout = Layout("flat", inner) if permuted else SOURCE
    if product(shape[1:]) is None:
        return context.layer("flattenTo2D", x, layout=layout, axis=1)
    return context.reshape(x, (shape[0], product(shape[1:])), layout=layout)


@op("Reshape", layouts=UNFLATTENED)
def reshape(context: Lowering, node: Node, x: Blob) -> Blob:
    if x.layout == CHANNELS_FIRST and product(x.known[2:]) == 1:
        use(x, range(2, x.rank))
        x = context.relabel(x, SOURCE)  # one value for each channel has the same order either way
    x = context.source_order(x)
    target = list(node.attrs["target_shape"])
    size = product(x.known[1:])
    rest: list[Any] = list(target)
    if -1 in target or None in target:
        target = [-1 if n is None else n for n in target]
        if target.count(-1) > 1:
            raise ConversionError(f"target_shape={tuple(target)}: only one extent may be -1")
        rest = [None if n == -1 else n for n in target]
        known = product(n for n in target if n != -1)
        if size is not None and known:
            target[target.index(-1)] = size // known
    if size is not None and product(target) != size:
        raise ConversionError(
            f"target_shape={tuple(target)} does not hold the {size} values of {x.known[1:]}"
        )
    if x.rank == 2 and None not in target and len(target) >= 2 and product(target[:-1]) == 1:
        # as in squeeze and excitation
        shape = (x.known[0], target[-1], *target[:-1])
        return context.reshape(x, shape, layout=CHANNELS_FIRST)
    if x.known[0] is None or x.rank > MOST_AXES or len(target) >= MOST_AXES:
        return context.reshape(x, (x.known[0], *target), layout=SOURCE)
    return reshaped(context, x, (x.known[0], *rest))


@op("Permute", layouts=(SOURCE,))
def permute(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.layer("transpose", x, axes=(0, *node.attrs["dims"]))


@op("RepeatVector", layouts=(SOURCE,))
def repeat_vector(context: Lowering, node: Node, x: Blob) -> Blob:
    return context.layer("tile", context.expand(x, 1), reps=(1, node.attrs["n"], 1))


_SIDES = (("top_pad", "bottom_pad"), ("left_pad", "right_pad"))  # where a config names them


def amounts(node: Node, option: str, default: int) -> list[tuple[int, int]]:
    """What is added to or cut off each axis, before and after.

    A config has a number, or one number or pair for each axis; of a line a pair, and of images four
    numbers or a dict of sides, too.

    Raises:
        ConversionError: it has something else.
    """
    value, axes = node.attrs.get(option, default), dimensions_of(node)
    if isinstance(value, int):
        return [(value, value)] * axes
    if isinstance(value, Mapping):
        items = [[value.get(side, 0) for side in sides] for sides in _SIDES[-axes:]]
    else:
        items = [value] if axes == 1 else list(value)
    if axes == 2 and len(items) == 4:
        items = [items[:2], items[2:]]
    pairs = [(n, n) if isinstance(n, int) else tuple(n) for n in items]
    if [len(pair) for pair in pairs] != [2] * axes:
        raise ConversionError(f"{option}={value!r}: a number or a pair is needed for each axis")
    return [(int(before), int(after)) for before, after in pairs]


@spatial_op("ZeroPadding{}D", dimensions=(1, 2))
def zero_padding(context: Lowering, node: Node, x: Blob) -> Blob:
    around = edges([(0, 0), *amounts(node, "padding", 1)][-2:])
    x = as_image(context, x, dimensions_of(node))
    y = context.layer("padding", x, constant={"value": 0.0}, **around)
    return from_image(context, y, dimensions_of(node))


@spatial_op("Cropping{}D", dimensions=(1, 2))
def cropping(context: Lowering, node: Node, x: Blob) -> Blob:
    default = 1 if dimensions_of(node) == 1 else 0
    around = edges([(0, 0), *amounts(node, "cropping", default)][-2:], "cropAmounts")
    x = as_image(context, x, dimensions_of(node))
    return from_image(context, context.layer("crop", x, **around), dimensions_of(node))
