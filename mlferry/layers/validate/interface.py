"""Rules about the inputs and outputs of a model."""

from __future__ import annotations

from collections import Counter

from mlferry.layers.definitions import EVERY
from mlferry.layers.validate.rules import FEATURE_RULES, Feature, feature_rule, model_rule
from mlferry.spec import features
from mlferry.spec.problems import Problems, error, listed, warning, within
from mlferry.spec.proto import features_pb2 as ft, model_pb2

_DEFAULTS = {
    "intDefaultValue": ("int32", "int8"),
    "floatDefaultValue": ("float32", "float16"),
    "doubleDefaultValue": ("float64",),
}


@model_rule
def names_are_unique(spec: model_pb2.Model) -> Problems:
    """Inputs have different names, and so do outputs."""
    description = spec.description
    for role, described in (("input", description.input), ("output", description.output)):
        for name, count in Counter(feature.name for feature in described).items():
            if count > 1:
                yield error(f"{count} {role}s have this name", f"{role} {name!r}")


@model_rule
def each_feature(spec: model_pb2.Model) -> Problems:
    """Apply every rule about single inputs and outputs."""
    description = spec.description
    for role, described in (("input", description.input), ("output", description.output)):
        for item in described:
            feature = Feature(item.name, item.type, role == "input", spec)
            rules = [
                *FEATURE_RULES[EVERY],
                *FEATURE_RULES.get(item.type.WhichOneof("Type") or "", ()),
            ]
            problems = (problem for rule in rules for problem in rule(feature))
            yield from within(f"{role} {item.name!r}", problems)


@feature_rule()
def name_is_set(feature: Feature) -> Problems:
    """A feature has a name."""
    if not feature.name:
        yield warning("it has no name")


@feature_rule()
def type_is_set(feature: Feature) -> Problems:
    """A feature has a type."""
    if feature.type.WhichOneof("Type") is None:
        yield error("it has no type, or one of a newer format")


@feature_rule()
def outputs_are_not_optional(feature: Feature) -> Problems:
    """Only inputs can be optional."""
    if feature.type.isOptional and not feature.is_input:
        yield warning("isOptional is set; only inputs can be optional")


@feature_rule("multiArrayType")
def array_data_type(feature: Feature) -> Problems:
    """The type of the numbers is known."""
    number = feature.type.multiArrayType.dataType
    if number not in features.DTYPES:
        array_types = ", ".join(f"{name} ({value})" for name, value in features.ARRAY_TYPES.items())
        yield warning(f"multiArrayType.dataType {number} is unknown; known are {array_types}")


@feature_rule("multiArrayType")
def array_shape(feature: Feature) -> Problems:
    """An input has a default shape, and extents are positive."""
    array = feature.type.multiArrayType
    fixed = array.WhichOneof("ShapeFlexibility") is None
    if feature.is_input and fixed and not array.shape:
        yield warning("multiArrayType.shape is empty; an input needs a shape")
    if any(extent < 1 for extent in array.shape):
        text = f"multiArrayType.shape is {listed(array.shape)}; extents are positive"
        yield feature.misfit(text) if fixed else warning(text)


@feature_rule("multiArrayType")
def array_shape_range(feature: Feature) -> Problems:
    """There are as many ranges as extents, none is empty, and they contain the default shape."""
    array = feature.type.multiArrayType
    if array.WhichOneof("ShapeFlexibility") != "shapeRange":
        return
    ranges = array.shapeRange.sizeRanges
    yield from _not_empty(feature, {f"axis {i}": bounds for i, bounds in enumerate(ranges)})
    if not array.shape:
        if not ranges:
            yield warning("shapeRange has no ranges, and there is no default shape")
        return
    if len(array.shape) != len(ranges):
        yield warning(
            f"shapeRange has {len(ranges)} ranges for the {len(array.shape)} extents of shape"
        )
    elif not all(map(_holds, ranges, array.shape)):
        yield warning(f"the default shape {listed(array.shape)} is outside of shapeRange")


@feature_rule("multiArrayType")
def array_enumerated_shapes(feature: Feature) -> Problems:
    """Shapes are listed, none is empty, and the default shape is one of them."""
    array = feature.type.multiArrayType
    if array.WhichOneof("ShapeFlexibility") != "enumeratedShapes":
        return
    shapes = [list(item.shape) for item in array.enumeratedShapes.shapes]
    if not shapes:
        yield warning("enumeratedShapes is empty")
    elif array.shape and list(array.shape) not in shapes:
        yield warning(f"the default shape {listed(array.shape)} is not among enumeratedShapes")
    if any(not shape or min(shape) < 1 for shape in shapes):
        yield warning("enumeratedShapes has a shape without extents, or with one below 1")


@feature_rule("multiArrayType")
def array_default_value(feature: Feature) -> Problems:
    """The default value of an optional input is of the array's own type."""
    array = feature.type.multiArrayType
    field = array.WhichOneof("defaultOptionalValue")
    dtype = features.DTYPES.get(array.dataType)
    if field is not None and dtype is not None and dtype not in _DEFAULTS[field]:
        yield warning(f"{field} does not go with numbers of type {dtype}")


@feature_rule("imageType")
def image_color_space(feature: Feature) -> Problems:
    """The colours are known."""
    number = feature.type.imageType.colorSpace
    if number not in features.LAYOUTS:
        yield error(
            f"imageType.colorSpace {number} is unknown; known are "
            + ", ".join(features.COLOR_SPACES)
        )


@feature_rule("imageType")
def image_size(feature: Feature) -> Problems:
    """Width and height are positive, unless flexible."""
    image = feature.type.imageType
    if image.WhichOneof("SizeFlexibility") is None and min(image.width, image.height) < 1:
        yield feature.misfit(
            f"imageType is {image.width} wide and {image.height} high; both must be positive"
        )


@feature_rule("imageType")
def image_size_range(feature: Feature) -> Problems:
    """Ranges are not empty and contain the default size."""
    image = feature.type.imageType
    if image.WhichOneof("SizeFlexibility") != "imageSizeRange":
        return
    bounds = image.imageSizeRange
    yield from _not_empty(feature, {"width": bounds.widthRange, "height": bounds.heightRange})
    if image.width < 1 or image.height < 1:
        if min(bounds.widthRange.lowerBound, bounds.heightRange.lowerBound) < 1:
            yield warning(
                "imageSizeRange begins at 0, and there is no default size: its least size is the "
                "default, and sizes are positive"
            )
        return
    if not (_holds(bounds.widthRange, image.width) and _holds(bounds.heightRange, image.height)):
        size = f"{image.width} x {image.height}"
        yield warning(f"the default size {size} (width x height) is outside of imageSizeRange")


@feature_rule("imageType")
def image_enumerated_sizes(feature: Feature) -> Problems:
    """Sizes are listed, all are positive, and the default size is one of them."""
    image = feature.type.imageType
    if image.WhichOneof("SizeFlexibility") != "enumeratedSizes":
        return
    sizes = [(item.width, item.height) for item in image.enumeratedSizes.sizes]
    default = (image.width, image.height)
    if not sizes:
        yield warning("enumeratedSizes is empty")
    elif min(default) > 0 and default not in sizes:
        yield warning(
            f"the default size {default[0]} x {default[1]} (width x height) is not among "
            "enumeratedSizes"
        )
    if any(min(size) < 1 for size in sizes):
        yield warning("enumeratedSizes has a size that is not positive")


@feature_rule("dictionaryType")
def dictionary_key(feature: Feature) -> Problems:
    """The keys of a dictionary have a type."""
    if feature.type.dictionaryType.WhichOneof("KeyType") is None:
        yield warning("dictionaryType has no type of keys: int64KeyType or stringKeyType")


@feature_rule("sequenceType")
def sequence_type(feature: Feature) -> Problems:
    """The values of a sequence have a type."""
    if feature.type.sequenceType.WhichOneof("Type") is None:
        yield warning("sequenceType has no type of values: int64Type or stringType")
    yield from _not_empty(feature, {"sizeRange": feature.type.sequenceType.sizeRange})


def _not_empty(feature: Feature, ranges: dict[str, ft.SizeRange]) -> Problems:
    for name, bounds in ranges.items():
        if 0 <= bounds.upperBound < bounds.lowerBound:
            yield feature.misfit(
                f"the range of its {name} goes from {bounds.lowerBound} to {bounds.upperBound}; "
                "a negative upper bound is no bound"
            )


def _holds(bounds: ft.SizeRange, extent: int) -> bool:
    return extent >= bounds.lowerBound and (bounds.upperBound < 0 or extent <= bounds.upperBound)
