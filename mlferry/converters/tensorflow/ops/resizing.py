"""Resizing of images, with both coordinate options."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.flexible_resizing import Number, numbers, size_along
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import array_of, extent, ints, shaped, truncated
from mlferry.converters.projection import Filling, projected
from mlferry.converters.resizing import Sampling, along, keys, resize
from mlferry.converters.tensorflow.ops.elementwise import is_integer
from mlferry.converters.tensorflow.ops.registry import joint, op, source
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, Blob, Constant, Operand
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

Weights = NDArray[np.float64]
Kernel = Callable[[Weights], Weights]
_STEPS = 1024
_MODES = {
    "ResizeBilinear": "linear",
    "ResizeNearestNeighbor": "nearest",
    "ResizeBicubic": "cubic",
}


@op(*_MODES, constants=(1,), layouts=(CHANNELS_FIRST,))
def resize_images(context: Lowering, node: Node, x: Blob, size: Array) -> Blob:
    """Like TensorFlow: positions are float32, cubic weights are those of 1,024 distances."""
    corners = bool(node.attrs.get("align_corners", False))
    centers = bool(node.attrs.get("half_pixel_centers", False))
    mode = _MODES[node.op]

    def positions(axis: int, before: int, after: int, factor: float) -> Array:
        i = np.arange(after, dtype=np.float32)
        if corners and after > 1:
            return np.asarray(i * np.float32((before - 1) / (after - 1)))
        scale = np.float32(before / after)
        if not centers:
            return np.asarray(i * scale)
        middle = (i + np.float32(0.5)) * scale
        return np.asarray(np.floor(middle) if mode == "nearest" else middle - np.float32(0.5))

    height, width = ints(size)
    target = (x.known[0], x.known[1], height, width)
    factors = [1.0, 1.0, height / extent(x, 2), width / extent(x, 3)]
    sampling = Sampling(
        mode,
        positions,
        rounding=(lambda v: np.floor(v + 0.5)) if corners else np.floor,
        repeats=not corners,
        half_pixel=centers and not corners,
        cubic=-0.5 if centers else -0.75,
        exclude_outside=centers,
        steps=_STEPS,
    )
    return resize(context, x, target, factors, sampling)


@op("ResizeArea", constants=(1,), layouts=(CHANNELS_FIRST,))
def resize_area(context: Lowering, node: Node, x: Blob, size: Array) -> Blob:
    """Averages the pixels, and parts of pixels, that a new pixel covers."""
    corners = bool(node.attrs.get("align_corners", False))
    for axis, after in enumerate(ints(size), 2):
        before = extent(x, axis)
        scale = (before - 1) / (after - 1) if corners and after > 1 else before / after
        x = along(context, x, axis, _areas(before, after, scale))
    return x


def _areas(before: int, after: int, scale: float) -> NDArray[np.float32]:
    """[after, before]: the share of each old pixel in each new one; edges repeat."""
    output = np.zeros((after, before))
    for row in range(after):
        start, end = row * scale, (row + 1) * scale
        for place in range(math.floor(start), math.ceil(end)):
            part = min(place + 1, end) - max(place, start)
            output[row, min(place, before - 1)] += part / scale
    return output.astype(np.float32)


def _lanczos(radius: int) -> Kernel:
    return lambda x: np.where(x <= radius, np.sinc(x) * np.sinc(x / radius), 0.0)


def _mitchell(x: Weights) -> Weights:
    near = (7 / 6 * x - 2) * x * x + 8 / 9
    far = ((-7 / 18 * x + 2) * x - 10 / 3) * x + 16 / 9
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


# Of distances in pixels, and as far as they reach.
_KERNELS: dict[str, tuple[Kernel, float]] = {
    "lanczos1": (_lanczos(1), 1.0),
    "lanczos3": (_lanczos(3), 3.0),
    "lanczos5": (_lanczos(5), 5.0),
    "gaussian": (lambda x: np.where(x <= 1.5, np.exp(-2 * x * x), 0.0), 1.5),
    "box": (lambda x: np.where(x < 0.5, 1.0, np.where(x == 0.5, 0.5, 0.0)), 1.0),
    "triangle": (lambda x: np.maximum(1 - x, 0.0), 1.0),
    "keyscubic": (keys, 2.0),
    "mitchellcubic": (_mitchell, 2.0),
}


@op("ScaleAndTranslate", constants=(1, 2, 3), layouts=(CHANNELS_FIRST,))
def scale_and_translate(
    context: Lowering, node: Node, x: Blob, size: Array, scale: Array, translation: Array
) -> Blob:
    """Also the op of `tf.image.resize(antialias=True)`; a matrix for each axis."""
    name = node.attrs.get("kernel_type", "lanczos3")
    if name not in _KERNELS:
        raise ConversionError(f"kernel_type={name!r}: one of {', '.join(_KERNELS)}")
    antialias = bool(node.attrs.get("antialias", True))
    settings = zip(ints(size), np.ravel(scale), np.ravel(translation), strict=True)
    for axis, (after, factor, shift) in enumerate(settings, 2):
        if factor <= 0:
            raise ConversionError(f"scale={list(np.ravel(scale))}: it must be above 0")
        weights = _spans(extent(x, axis), after, factor, shift, _KERNELS[name], antialias)
        x = along(context, x, axis, weights)
    return x


def _spans(
    before: int,
    after: int,
    scale: np.float32,
    shift: np.float32,
    kernel: tuple[Kernel, float],
    antialias: bool,
) -> NDArray[np.float32]:
    """[after, before]: weights that sum up to 1, or 0 for samples outside the image."""
    one = np.float32(1)
    step = one / np.float32(scale)
    weigh, reach = kernel
    stretch = max(step, one) if antialias else one
    samples = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * step - step * shift
    pixels = np.arange(before, dtype=np.float32)
    first = np.clip(np.ceil(samples - reach * stretch - np.float32(0.5)), 0, before - 1)
    last = np.clip(np.floor(samples + reach * stretch - np.float32(0.5)), 0, before - 1)
    gap = np.abs(pixels + np.float32(0.5) - samples[:, None]) / stretch
    output = np.where(
        (pixels >= first[:, None]) & (pixels <= last[:, None]), weigh(gap.astype(np.float64)), 0.0
    )
    output[(samples < 0) | (samples > before)] = 0
    total = output.sum(axis=1, keepdims=True)
    result = np.abs(total) >= _SMALLEST_SUM
    weights = np.divide(output, total, out=np.zeros_like(output), where=result)
    rounded: NDArray[np.float32] = weights.astype(np.float32)
    return rounded


_SMALLEST_SUM = 1000 * float(np.finfo(np.float32).tiny)


@op("ImageProjectiveTransformV2", "ImageProjectiveTransformV3", raw=True)
def image_projective_transform(
    context: Lowering,
    node: Node,
    x: Operand,
    transform: Operand,
    size: Operand,
    fill: Operand | None = None,
) -> Blob:
    """One transform for all images, or one for each; integers lose their fraction."""
    height, width = ints(array_of(node, 2, size))
    value = 0.0 if fill is None else float(array_of(node, 3, fill))
    whole = is_integer(node)
    output = projected(
        context,
        source(context, x),
        transform.array if isinstance(transform, Constant) else source(context, transform),
        (height, width),
        Filling(
            str(node.attrs.get("interpolation", "NEAREST")).lower(),
            str(node.attrs.get("fill_mode", "CONSTANT")).lower(),
            float(np.trunc(value)) if whole else value,
        ),
    )
    return truncated(context, output) if whole else output


@op("CropAndResize", constants=(3,), layouts=(SOURCE,))
def crop_and_resize(
    context: Lowering, node: Node, x: Blob, boxes: Blob, which: Blob, size: Array
) -> Blob:
    """Boxes are fractions of the image; samples outside are `extrapolation_value`.

    A product with a matrix for each axis: the weights of the two nearest pixels, or of one.
    """
    method = node.attrs.get("method", "bilinear")
    outside = node.attrs.get("extrapolation_value", 0.0)
    if method not in ("bilinear", "nearest"):
        raise ConversionError(f"method={method!r}")
    height, width = ints(size)
    images = context.transpose(x, (0, 3, 1, 2))
    chosen = context.gather(images, which, 0)
    top, left, bottom, right = context.split(boxes, 4, -1)
    down, rows_inside = _samples(context, top, bottom, height, size_along(context, x, 1), method)
    across, columns_inside = _samples(
        context, left, right, width, size_along(context, x, 2), method
    )
    rows = context.matmul(context.expand(down, 1), chosen)
    output = context.matmul(rows, context.expand(across, 1), transpose_y=True)
    inside = joint(
        context,
        "logicalAnd",
        shaped(context, rows_inside, (rows_inside.known[0], 1, height, 1)),
        shaped(context, columns_inside, (columns_inside.known[0], 1, 1, width)),
    )
    result = context.where(inside, output, context.constant([outside]))
    return context.relabel(result, CHANNELS_FIRST)


def _samples(
    context: Lowering, start: Blob, end: Blob, count: int, size: Number, method: str
) -> tuple[Blob, Blob]:
    """[boxes, count, size] weights of pixels, and which of [boxes, count] lie inside."""
    last = (size - 1.0).blob
    if count > 1:
        first = joint(context, "multiplyBroadcastable", start, last)
        span = context.subtract(end, start)
        step = joint(context, "multiplyBroadcastable", span, ((size - 1.0) / (count - 1)).blob)
        moved = joint(
            context, "multiplyBroadcastable", step, context.constant(np.arange(count)[None])
        )
        places = joint(context, "addBroadcastable", first, moved)
    else:
        both = context.add(start, end)
        places = joint(context, "multiplyBroadcastable", both, ((size - 1.0) * 0.5).blob)
    inside = joint(
        context,
        "logicalAnd",
        context.emit("greaterEqual", places, alpha=0.0),
        joint(context, "lessEqual", places, last),
    )
    if method == "nearest":
        half_up = context.emit("activation", places, linear={"alpha": 1.0, "beta": 0.5})
        places = context.emit("floor", half_up)
    pixels = numbers(size).blob
    gap = joint(context, "subtractBroadcastable", context.expand(places, -1), pixels)
    distance = context.emit("unary", gap, type="ABS")
    hat = context.emit("activation", distance, linear={"alpha": -1.0, "beta": 1.0})
    return context.emit("activation", hat, ReLU={}), inside
