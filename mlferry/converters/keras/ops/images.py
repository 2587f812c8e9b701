"""`keras.ops.image`: colors, parts and transforms."""

from __future__ import annotations

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.functions import function, is_integer
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import truncated
from mlferry.converters.projection import Filling, projected
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, UNFLATTENED, Argument, Blob
from mlferry.errors import ConversionError

_LUMA = (0.2989, 0.5870, 0.1140)


def _is_first(data_format: str | None) -> bool:
    return data_format == "channels_first"


@function("RGBToGrayscale", layouts=UNFLATTENED)
def rgb_to_grayscale(
    context: Lowering, node: Node, images: Blob, data_format: str | None = None
) -> Blob:
    """The weighted sum of red, green and blue; gray images stay as they are."""
    axis = images.axis(-3 if _is_first(data_format) else -1)
    if images.known[axis] == 1:
        return images
    shape = [1] * images.rank
    shape[axis] = 3
    weights = context.constant(np.reshape(_LUMA, shape), layout=images.layout)
    layout = images.layout
    parts = context.layer("multiplyBroadcastable", images, weights, layout=layout)
    output = context.layer("reduceSum", parts, layout=layout, axes=(axis,), keepDims=True)
    return truncated(context, output) if is_integer(node) else output


@function("CropImages")
def crop_images(
    context: Lowering,
    node: Node,
    images: Blob,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Blob:
    """Two of three are given: what is cut off at the start, at the end, and what remains."""
    axes = (-2, -1) if _is_first(data_format) else (-3, -2)
    starts, ends = [], []
    for before, behind, target in (
        (top_cropping, bottom_cropping, target_height),
        (left_cropping, right_cropping, target_width),
    ):
        if [before, behind, target].count(None) > 1:
            raise ConversionError("two of the croppings and the target of an axis are needed")
        starts.append(-((target or 0) + (behind or 0)) if before is None else before)
        ends.append((before or 0) + (target or 0) if behind is None else -behind or None)
    return sliced(context, images, starts, ends, [images.rank + axis for axis in axes], None)


@function("AffineTransform")
def affine_transform(
    context: Lowering,
    node: Node,
    images: Blob,
    transform: Argument,
    interpolation: str = "bilinear",
    fill_mode: str = "constant",
    fill_value: float = 0,
    data_format: str | None = None,
) -> Blob:
    single, first = images.rank == 3, _is_first(data_format)
    x = context.expand(images, 0) if single else images
    x = context.transpose(x, (0, 2, 3, 1)) if first else x
    size = x.known[1:3]
    if size[0] is None or size[1] is None:
        raise ConversionError("a transform of images of a flexible size")
    output = projected(
        context,
        x,
        transform if isinstance(transform, Blob) else np.asarray(transform),
        (size[0], size[1]),
        Filling(interpolation, fill_mode, float(fill_value)),
    )
    output = truncated(context, output) if is_integer(node) else output
    output = context.transpose(output, (0, 3, 1, 2)) if first else output
    return context.layer("squeeze", output, layout=SOURCE, axes=(0,)) if single else output
