"""Layers that move values without computing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.convolution import as_image, dimensions_of, edges, from_image
from mlferry.converters.keras.ops.registry import op, spatial
from mlferry.converters.lowering import Lowering
from mlferry.converters.reshapes import MOST_AXES, reshaped
from mlferry.converters.sizes import use
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Blob, Layout
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Sizes, product


@op("Flatten", layouts=UNFLATTENED)
def flatten(context: Lowering, node: Node, x: Blob) -> Blob:
    """Channels-first data is flattened in its own order; its readers permute weights or values.

    Keras itself flattens channels-first models in the order of channels-last ones.
    """
    first = node.attrs.get("data_format") == "channels_first"
    if first and (x.shape is None or x.rank > 2):
        x = context.transpose(context.source_order(x), (0, *range(2, x.rank), 1))
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


def _amounts(
    node: Node, option: str, default: int | Sequence[Sizes]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """What is added to or cut off height and width, before and after."""
    value = node.attrs.get(option, default)
    return ((0, 0), _line(value, option)) if dimensions_of(node) == 1 else _pairs(value, option)


def _pairs(
    value: int | Sequence[Sizes] | Mapping[str, int], option: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """One number, one for each axis, or a pair for each axis."""
    if isinstance(value, int):
        return (value, value), (value, value)
    if isinstance(value, Mapping):
        names = ("top_pad", "bottom_pad", "left_pad", "right_pad")
        top, bottom, left, right = (int(value.get(name, 0)) for name in names)
        return (top, bottom), (left, right)
    pairs = [_pair(item) for item in value]
    if len(pairs) == 4:
        top, bottom, left, right = (first for first, _ in pairs)
        return (top, bottom), (left, right)
    if len(pairs) != 2:
        raise ConversionError(f"{option}={value!r}: two numbers or two pairs are needed")
    return pairs[0], pairs[1]


def _pair(value: Sizes) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _line(value: int | Sequence[int] | Mapping[str, int], option: str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping):
        return int(value.get("left_pad", 0)), int(value.get("right_pad", 0))
    if len(value) != 2:
        raise ConversionError(f"{option}={value!r}: one number or a pair is needed")
    return value[0], value[1]


@op("ZeroPadding1D", layouts=spatial, rank=3)
@op("ZeroPadding2D", layouts=spatial, rank=4)
def zero_padding(context: Lowering, node: Node, x: Blob) -> Blob:
    amounts = edges(*_amounts(node, "padding", 1))
    x = as_image(context, x, dimensions_of(node))
    y = context.layer("padding", x, constant={"value": 0.0}, **amounts)
    return from_image(context, y, dimensions_of(node))


@op("Cropping1D", layouts=spatial, rank=3)
@op("Cropping2D", layouts=spatial, rank=4)
def cropping(context: Lowering, node: Node, x: Blob) -> Blob:
    amounts = _amounts(node, "cropping", 1 if dimensions_of(node) == 1 else 0)
    x = as_image(context, x, dimensions_of(node))
    y = context.layer("crop", x, **edges(*amounts, "cropAmounts"))
    return from_image(context, y, dimensions_of(node))
