"""Feature types of the inputs and outputs of a model: how to set them and how to show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlferry.numerics.shapes import Shape
from mlferry.spec.proto import features_pb2 as ft, model_pb2

FeatureType = ft.FeatureType

ARRAY_TYPES = {
    "float32": ft.ArrayFeatureType.FLOAT32,
    "float64": ft.ArrayFeatureType.DOUBLE,
    "int32": ft.ArrayFeatureType.INT32,
    "float16": ft.ArrayFeatureType.FLOAT16,
    "int8": ft.ArrayFeatureType.INT8,
}
DTYPES = {number: name for name, number in ARRAY_TYPES.items()}
COLOR_SPACES = {
    "RGB": ft.ImageFeatureType.RGB,
    "BGR": ft.ImageFeatureType.BGR,
    "GRAYSCALE": ft.ImageFeatureType.GRAYSCALE,
    "GRAYSCALE_FLOAT16": ft.ImageFeatureType.GRAYSCALE_FLOAT16,
}
CHANNELS = {"RGB": 3, "BGR": 3, "GRAYSCALE": 1, "GRAYSCALE_FLOAT16": 1}
LAYOUTS = {number: name for name, number in COLOR_SPACES.items()}


def multi_array(shape: Shape | None, dtype: str = "float32") -> FeatureType:
    """Set a multi-array; an unknown shape, or one with unknown extents, is left open."""
    feature = FeatureType()
    feature.multiArrayType.dataType = ARRAY_TYPES[dtype]
    if shape is not None and None not in shape:
        feature.multiArrayType.shape.extend(extent for extent in shape if extent is not None)
    return feature


def image(width: int, height: int, color_layout: str) -> FeatureType:
    """An image; `color_layout` is a key of `COLOR_SPACES`."""
    feature = FeatureType()
    feature.imageType.width = width
    feature.imageType.height = height
    feature.imageType.colorSpace = COLOR_SPACES[color_layout]
    return feature


def set_range(target: ft.SizeRange, lower: int, upper: int) -> None:
    """Set the bounds of one extent; an upper bound below 0 means none."""
    target.lowerBound, target.upperBound = lower, upper


def blob_shapes(feature: FeatureType) -> list[Shape]:
    """The blob shapes that a flexible feature allows: the default, then the choices or both bounds.

    Images are [1, C, H, W]. An extent without an upper bound is None in the last shape.
    """
    if feature.WhichOneof("Type") == "imageType":
        picture = feature.imageType
        channels = CHANNELS[LAYOUTS[picture.colorSpace]]
        sizes: list[tuple[int | None, int | None]] = [(picture.height, picture.width)]
        sizes += [(size.height, size.width) for size in picture.enumeratedSizes.sizes]
        if picture.HasField("imageSizeRange"):
            ranges = picture.imageSizeRange.heightRange, picture.imageSizeRange.widthRange
            sizes += list(zip(*map(_bounds, ranges), strict=True))
        return [(1, channels, *size) for size in sizes]
    array = feature.multiArrayType
    results: list[Shape] = [tuple(array.shape)]
    results += [tuple(item.shape) for item in array.enumeratedShapes.shapes]
    if array.HasField("shapeRange"):
        results += list(zip(*map(_bounds, array.shapeRange.sizeRanges), strict=True))
    return results


def _bounds(size: ft.SizeRange) -> tuple[int, int | None]:
    return size.lowerBound, None if size.upperBound < 0 else size.upperBound


def output_shape(feature: FeatureType, blob: Shape) -> Shape:
    """The output shape of a blob of the classic mapping, which has five axes.

    It is the described shape if that has as many values, as apps of the time expect. Otherwise it
    is the blob's own: for images, for several steps or samples, and without a described shape.
    """
    described = tuple(feature.multiArrayType.shape)
    known = [extent for extent in blob if extent is not None]
    same = len(known) == len(blob) and math.prod(known) == math.prod(described)
    return described if described and same else blob


def dictionary(string_keys: bool) -> FeatureType:
    """A dictionary from strings, or int64, to doubles."""
    feature = FeatureType()
    key = feature.dictionaryType
    (key.stringKeyType if string_keys else key.int64KeyType).SetInParent()
    return feature


def string() -> FeatureType:
    """A string."""
    feature = FeatureType()
    feature.stringType.SetInParent()
    return feature


def int64() -> FeatureType:
    """A 64-bit integer."""
    feature = FeatureType()
    feature.int64Type.SetInParent()
    return feature


def show(feature: FeatureType) -> str:
    """A feature type in words: ``multi-array float32 1 x 60 x 60 x 1``."""
    kind = feature.WhichOneof("Type")
    optional = " (optional)" if feature.isOptional else ""
    if kind == "multiArrayType":
        array = feature.multiArrayType
        dtype = DTYPES.get(array.dataType, "of unknown type")
        return f"multi-array {dtype} {_times(array.shape)}".rstrip() + _flexible(array) + optional
    if kind == "imageType":
        picture = feature.imageType
        layout = LAYOUTS.get(picture.colorSpace, "unknown colours")
        size = f"{picture.width} x {picture.height}"
        return f"image {layout} {size}" + _flexible_image(picture) + optional
    if kind == "dictionaryType":
        key = feature.dictionaryType.WhichOneof("KeyType")
        return f"dictionary {'int64' if key == 'int64KeyType' else 'string'} to double" + optional
    if kind == "sequenceType":
        return "sequence" + optional
    if kind == "stateType":
        array = feature.stateType.arrayType
        dtype = DTYPES.get(array.dataType, "of unknown type")
        return f"state {dtype} {_times(array.shape)}".rstrip()
    names = {"int64Type": "int64", "doubleType": "double", "stringType": "string"}
    return names.get(kind or "", kind or "nothing") + optional


def has_flexible_input(description: model_pb2.ModelDescription) -> bool:
    """Whether an input may have several shapes or sizes."""
    return any(
        feature.type.multiArrayType.WhichOneof("ShapeFlexibility") is not None
        or feature.type.imageType.WhichOneof("SizeFlexibility") is not None
        for feature in description.input
    )


def _flexible(array: ft.ArrayFeatureType) -> str:
    kind = array.WhichOneof("ShapeFlexibility")
    if kind == "enumeratedShapes":
        shapes = (_times(shape.shape) for shape in array.enumeratedShapes.shapes)
        return f", one of {', '.join(shapes)}"
    if kind == "shapeRange":
        return ", " + " x ".join(_range(size) for size in array.shapeRange.sizeRanges)
    return ""


def _flexible_image(picture: ft.ImageFeatureType) -> str:
    kind = picture.WhichOneof("SizeFlexibility")
    if kind == "enumeratedSizes":
        sizes = (f"{size.width} x {size.height}" for size in picture.enumeratedSizes.sizes)
        return f", one of {', '.join(sizes)}"
    if kind == "imageSizeRange":
        size = picture.imageSizeRange
        return f", {_range(size.widthRange)} x {_range(size.heightRange)}"
    return ""


def _range(size: ft.SizeRange) -> str:
    if size.upperBound == size.lowerBound:
        return str(size.lowerBound)
    return f"{size.lowerBound}..{size.upperBound if size.upperBound >= 0 else ''}"


def _times(extents: Sequence[int]) -> str:
    return " x ".join(map(str, extents))


def default_of(feature: ft.FeatureType) -> float:
    """The value of an optional multi-array that you leave out: 0 by default."""
    kind = feature.multiArrayType.WhichOneof("defaultOptionalValue")
    return float(getattr(feature.multiArrayType, kind)) if kind else 0.0
