"""Preprocessing of images, categories and signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlferry.converters.convolutions import Windows, convolved
from mlferry.converters.graph import Node
from mlferry.converters.keras.ops.functions import function
from mlferry.converters.keras.ops.registry import choice, op, spatial
from mlferry.converters.keras.ops.resizing import resized
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.slices import padded, sliced
from mlferry.converters.values import CHANNELS_FIRST, SOURCE, UNFLATTENED, Blob
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Sizes

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


def _part(context: Lowering, x: Blob, top: int, left: int, height: int, width: int) -> Blob:
    output = sliced(context, x, [top, left], [top + height, left + width], [2, 3], None)
    return context.relabel(output, x.layout)


def _fitted(context: Lowering, node: Node, x: Blob, size: tuple[int, int]) -> Blob:
    """Crop or pad to the aspect ratio of the target size."""
    value = float(node.attrs.get("fill_value", 0.0))
    choice(node, "fill_mode", ("constant",), "constant")
    height, width = extent(x, 2), extent(x, 3)
    ratio = int(float(width * size[0]) / size[1]), int(float(height * size[1]) / size[0])
    if node.attrs.get("crop_to_aspect_ratio", False):
        rows, columns = min(height, ratio[0]), min(width, ratio[1])
        top, left = int((height - rows) / 2), int((width - columns) / 2)
        return _part(context, x, top, left, rows, columns)
    if node.attrs.get("pad_to_aspect_ratio", False):
        rows, columns = max(height, ratio[0]), max(width, ratio[1])
        top, left = int((rows - height) / 2), int((columns - width) / 2)
        amounts = [0, 0, top, left] * 2  # Keras pads as much after as before
        return context.relabel(padded(context, x, amounts, "constant", value), x.layout)
    return x


@op("Resizing", layouts=spatial, rank=4)
def resizing(context: Lowering, node: Node, x: Blob) -> Blob:
    size = int(node.attrs["height"]), int(node.attrs["width"])
    mode = choice(node, "interpolation", _INTERPOLATIONS, "bilinear")
    antialias = bool(node.attrs.get("antialias", False))
    return resized(context, _fitted(context, node, x, size), size, mode, antialias)


@function("Resize", tf={"image.resize": {"method": "interpolation"}})
def resize(
    context: Lowering,
    node: Node,
    images: Blob,
    size: Sequence[int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str | None = None,
    fill_value: float | None = None,
    data_format: str | None = None,
) -> Blob:
    """As the layer of that name; TensorFlow keeps sizes and ratios unchanged."""
    if interpolation not in _INTERPOLATIONS:
        raise ConversionError(f"interpolation={interpolation!r}")
    first = data_format == "channels_first"
    order = (0, 3, 1, 2)
    x = images if first else context.transpose(images, order)
    target = int(size[0]), int(size[1])
    output = resized(
        context, _fitted(context, node, x, target), target, interpolation, bool(antialias)
    )
    return output if first else context.transpose(output, (0, 2, 3, 1))


@function("ExtractPatches", layouts=(CHANNELS_FIRST,))
def extract_patches(
    context: Lowering,
    node: Node,
    images: Blob,
    size: Sizes,
    strides: Sizes | None = None,
    dilation_rate: Sizes = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Blob:
    """Each patch as a row of values, by a convolution that moves values."""
    if data_format == "channels_first":
        raise ConversionError("data_format='channels_first'")
    if padding not in ("valid", "same"):
        raise ConversionError(f"padding={padding!r}")
    rows, columns = (int(n) for n in np.broadcast_to(size, 2))
    step = (
        (rows, columns) if strides is None else tuple(int(n) for n in np.broadcast_to(strides, 2))
    )
    channels = extent(images, 1)
    count = rows * columns * channels
    moved = np.eye(count, dtype=np.float32).reshape(count, rows, columns, channels)
    spread = tuple(int(n) for n in np.broadcast_to(dilation_rate, 2))
    same = "BOTTOM_RIGHT_HEAVY" if padding == "same" else ""
    windows = Windows(step, spread, [(0, 0), (0, 0)], same=same)
    weights = np.ascontiguousarray(moved.transpose(0, 3, 1, 2))
    return convolved(context, images, weights, windows, layout=images.layout)


@op("CenterCrop", layouts=spatial, rank=4)
def center_crop(context: Lowering, node: Node, x: Blob) -> Blob:
    """The middle of the image; smaller images are cropped to the ratio and resized."""
    size = int(node.attrs["height"]), int(node.attrs["width"])
    height, width = extent(x, 2), extent(x, 3)
    if height >= size[0] and width >= size[1]:
        top, left = int((height - size[0]) / 2), int((width - size[1]) / 2)
        return _part(context, x, top, left, *size)
    node.attrs.add("crop_to_aspect_ratio", True)
    return resized(context, _fitted(context, node, x, size), size, "bilinear", False)


@op("AutoContrast", layouts=UNFLATTENED)
def auto_contrast(context: Lowering, node: Node, x: Blob) -> Blob:
    """Stretch each channel to the whole range; a channel of a single value stays."""
    node.attrs.get("data_format")
    lowest, highest = node.attrs.get("value_range", (0, 255))
    if (lowest, highest) != (0, 255):
        raise ConversionError(f"value_range={(lowest, highest)}: (0, 255) can be converted")
    axes = tuple(x.axis(axis) for axis in (1, 2))
    least = context.layer("reduceMin", x, layout=x.layout, axes=axes, keepDims=True)
    most = context.layer("reduceMax", x, layout=x.layout, axes=axes, keepDims=True)
    span = context.layer("subtractBroadcastable", most, least, layout=x.layout)
    flat = context.layer("equal", span, layout=x.layout, alpha=0.0)
    safe = context.layer("addBroadcastable", span, flat, layout=x.layout)
    scale = context.layer(
        "divideBroadcastable", context.constant([255.0], layout=x.layout), safe, layout=x.layout
    )
    moved = context.subtract(x, least)
    stretched = context.layer("multiplyBroadcastable", moved, scale, layout=x.layout)
    inside = context.layer("clip", stretched, layout=x.layout, minVal=0.0, maxVal=255.0)
    return context.layer("whereBroadcastable", flat, x, inside, layout=x.layout)


# ---- categories ------------------------------------------------------------------------


def encoded(
    context: Lowering, node: Node, x: Blob, mode: str, depth: int, weights: Blob | None = None
) -> Blob:
    """Integers unchanged, or as one-hot rows, or as the maximum or sum of such rows."""
    if mode == "int":
        return x
    if mode == "one_hot":
        if x.rank > 1 and x.known[-1] == 1:
            x = context.layer("squeeze", x, layout=SOURCE, axes=(-1,))
        return context.layer(
            "oneHot", x, layout=SOURCE, oneHotVectorSize=depth, axis=-1, onValue=1.0
        )
    if x.rank == 1:
        x = context.expand(x, 1)
    rows = context.layer("oneHot", x, layout=SOURCE, oneHotVectorSize=depth, axis=-1, onValue=1.0)
    if weights is not None:
        wide = context.expand(weights, weights.rank)
        rows = context.multiply(rows, wide)
    kind = "reduceMax" if mode == "multi_hot" else "reduceSum"
    return context.layer(kind, rows, layout=SOURCE, axes=(x.rank - 1,), keepDims=False)


_MODES = ("int", "one_hot", "multi_hot", "count")


@op("CategoryEncoding", layouts=(SOURCE,))
def category_encoding(context: Lowering, node: Node, x: Blob, *weights: Blob) -> Blob:
    mode = choice(node, "output_mode", _MODES, "multi_hot")
    node.arguments.get("count_weights")
    own_weights = weights[0] if weights else None
    return encoded(context, node, x, mode, int(node.attrs["num_tokens"]), own_weights)


@op("Discretization", layouts=(SOURCE,))
def discretization(context: Lowering, node: Node, x: Blob) -> Blob:
    """The number of boundaries that a value reaches."""
    for name in ("num_bins", "epsilon"):
        node.attrs.get(name)
    bounds = node.attrs.get("bin_boundaries")
    if bounds is None:
        raise ConversionError("bin_boundaries are missing: adapt the layer before it is saved")
    limits = context.constant(np.asarray(bounds, np.float32))
    reached = context.layer("greaterEqual", context.expand(x, x.rank), limits)
    count = context.layer("reduceSum", reached, axes=(x.rank,), keepDims=False)
    mode = choice(node, "output_mode", _MODES, "int")
    return encoded(context, node, count, mode, len(bounds) + 1)


@op("IntegerLookup", layouts=(SOURCE,))
def integer_lookup(context: Lowering, node: Node, x: Blob) -> Blob:
    """The index of each integer in the vocabulary, as sums of comparisons."""
    attrs = node.attrs
    words = attrs.get("vocabulary")
    if not isinstance(words, list | tuple):
        raise ConversionError("the vocabulary is not in the config: adapt or give it")
    for name in ("max_tokens", "vocabulary_size", "vocabulary_dtype", "oov_token", "encoding"):
        attrs.get(name)
    choice(node, "oov_method", ("floormod",), "floormod")
    mode = choice(node, "output_mode", (*_MODES, "tf_idf"), "int")
    unknown, token = int(attrs.get("num_oov_indices", 1)), attrs.get("mask_token")
    if attrs.get("invert", False):
        raise ConversionError("invert=True")
    if attrs.get("pad_to_max_tokens", False):
        raise ConversionError("pad_to_max_tokens=True")
    words = [int(word) for word in words]
    first = (1 if token is not None and mode == "int" else 0) + unknown
    if max(map(abs, words), default=0) >= 2**24:
        raise ConversionError("a vocabulary with integers above 2**24, which float32 cannot hold")
    table = context.constant(np.asarray(words, np.float32))
    same = context.layer("equal", context.expand(x, x.rank), table)
    places = np.arange(first, first + len(words), dtype=np.float32)
    output = context.layer("multiplyBroadcastable", same, context.constant(places))
    index = context.layer("reduceSum", output, axes=(x.rank,), keepDims=False)
    known = context.layer("reduceMax", same, axes=(x.rank,), keepDims=False)
    if unknown == 0:
        raise ConversionError("num_oov_indices=0: Keras fails on values outside the vocabulary")
    start = first - unknown
    other = context.layer("activation", known, linear={"alpha": -1.0, "beta": 1.0})
    if unknown > 1:
        whole = context.constant([float(unknown)])
        rounds = context.layer("floorDivBroadcastable", x, whole)
        rest = context.layer(
            "subtractBroadcastable", x, context.layer("multiplyBroadcastable", rounds, whole)
        )
        moved = context.layer("activation", rest, linear={"alpha": 1.0, "beta": float(start)})
        other = context.layer("multiply", other, moved)
    else:
        other = context.layer("activation", other, linear={"alpha": float(start)})
    index = context.layer("add", index, other)
    if token is not None and mode == "int":
        masked = context.layer("notEqual", x, alpha=float(token))
        index = context.layer("multiply", index, masked)
    elif token is not None:
        raise ConversionError(f"mask_token={token} with output_mode={mode!r}")
    counted = encoded(
        context, node, index, "count" if mode == "tf_idf" else mode, first + len(words)
    )
    if mode != "tf_idf":
        attrs.get("idf_weights")
        return counted
    idf = np.asarray(attrs["idf_weights"], np.float32)
    factors = np.concatenate([np.full(unknown, idf.mean(), np.float32), idf])
    return context.layer("multiplyBroadcastable", counted, context.constant(factors))
