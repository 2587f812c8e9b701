"""Upsampling by every interpolation of Keras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.convolution import as_image, from_image
from mlferry.converters.keras.ops.registry import choice, op, sizes, spatial
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.resizing import keys
from mlferry.converters.values import Blob
from mlferry.errors import ConversionError


def _nearest(context: Lowering, x: Blob, factors: tuple[int, int]) -> Blob:
    return context.layer("upsample", x, mode="NN", scalingFactor=factors)


@op("UpSampling1D", layouts=spatial, rank=3)
def up_sampling1d(context: Lowering, node: Node, x: Blob) -> Blob:
    """Repeat every step `size` times."""
    size = sizes(node.attrs.get("size", 2), 1, "size")[0]
    return from_image(context, _nearest(context, as_image(context, x, 1), (1, size)), 1)


@op("UpSampling2D", layouts=spatial, rank=4)
def up_sampling2d(context: Lowering, node: Node, x: Blob) -> Blob:
    """Core ML has nearest and half-pixel bilinear; other modes become two matrix products."""
    size = sizes(node.attrs.get("size", (2, 2)), 2, "size")
    mode = choice(node, "interpolation", ("nearest", "bilinear", *_FILTERS), "nearest")
    if mode == "nearest":
        return _nearest(context, x, (size[0], size[1]))
    if mode == "bilinear" and not _is_old(context):
        return context.layer(
            "upsample",
            x,
            mode="BILINEAR",
            linearUpsampleMode="ALIGN_CORNERS_FALSE",
            scalingFactor=size,
        )
    height, width = x.known[-2:]
    if height is None or width is None:
        raise ConversionError(f"interpolation={mode!r} of an input of flexible size")
    target = (height * size[0], width * size[1])
    return resized(context, x, target, mode, False, shift=0.0 if _is_old(context) else 0.5)


def resized(
    context: Lowering,
    x: Blob,
    size: tuple[int, int],
    mode: str,
    antialias: bool,
    shift: float = 0.5,
) -> Blob:
    """Resize [N, C, H, W] by gathering or by two matrix products.

    Args:
        x: its height and width are known.
        size: the height and width wanted.
        mode: "nearest", "bilinear", "bicubic", "lanczos3" or "lanczos5".
        antialias: widen the filter if the image becomes smaller.
        shift: the place of a value inside its pixel: 0.5 is the middle.
    """
    for axis, target in zip((2, 3), size, strict=True):
        count = extent(x, axis)
        if count == target:
            continue
        context.compute(8 * target * (1 if mode == "nearest" else count))
        if mode == "nearest":
            places = np.floor((np.arange(target) + shift) * count / target)
            chosen = context.constant(np.minimum(places, count - 1), layout=x.layout)
            x = context.layer("gather", x, chosen, layout=x.layout, axis=axis)
            continue
        kernel = _FILTERS.get(mode, _triangle)
        matrix = _matrix(count, target, shift, kernel, antialias)
        weights = context.constant(matrix, layout=x.layout)
        x = (
            context.layer("batchedMatmul", weights, x, layout=x.layout)
            if axis == 2
            else context.layer("batchedMatmul", x, weights, layout=x.layout, transposeB=True)
        )
    return x


def _is_old(context: Lowering) -> bool:
    """Whether a standalone Keras 2 on TensorFlow 1 wrote the model: it sampled i * in / out."""
    release = context.graph.release
    if context.graph.version != 2 or "-tf" in release:
        return False
    numbers = [int(part) for part in release.split(".")[:2] if part.isdigit()]
    return numbers < [2, 4]


Filter = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def _lanczos(radius: int) -> Filter:
    return lambda x: np.where(x < radius, np.sinc(x) * np.sinc(x / radius), 0.0)


_FILTERS: dict[str, Filter] = {
    "bicubic": keys,
    "lanczos3": _lanczos(3),
    "lanczos5": _lanczos(5),
}


def _matrix(
    size: int, out: int, shift: float, kernel: Filter, antialias: bool
) -> NDArray[np.float32]:
    """[1, 1, out, size]: the weights of every pixel, at half-pixel positions or from the corner."""
    centers = (np.arange(out) + shift) * size / out - shift
    wide = max(size / out, 1.0) if antialias else 1.0
    if kernel is _triangle and wide == 1:
        centers = np.clip(centers, 0, size - 1)
    if kernel is keys and wide == 1:  # TensorFlow looks its weights up in a table of 1024
        centers = np.floor(centers) + np.round((centers - np.floor(centers)) * 1024) / 1024
    distances = np.abs(centers[:, None] - np.arange(size)[None]) / wide
    matrix = kernel(distances)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix.astype(np.float32)[None, None]
