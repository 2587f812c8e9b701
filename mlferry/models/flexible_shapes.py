"""Inputs and outputs of several sizes, with the functions of coremltools.

Unlike there, sizes are checked: if a layer does not accept a range or list, you get an error that
names the sizes that all layers accept. All functions change a `Model` message in place; on an error
they leave it unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from mlferry.errors import SpecError, context
from mlferry.layers import versions
from mlferry.layers.flexible import Acceptance, acceptance, flexible_axes
from mlferry.models.model import MLModel
from mlferry.models.problems import refuse_programs
from mlferry.models.training import set_type
from mlferry.registry import did_you_mean
from mlferry.runtime.custom import shapes_of_classes
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.text import paragraph

__all__ = [
    "NeuralNetworkImageSize",
    "NeuralNetworkImageSizeRange",
    "NeuralNetworkMultiArrayShape",
    "NeuralNetworkMultiArrayShapeRange",
    "accepted_sizes",
    "add_enumerated_image_sizes",
    "add_enumerated_multiarray_shapes",
    "add_multiarray_ndshape_enumeration",
    "set_multiarray_ndshape_range",
    "update_image_size_range",
    "update_multiarray_shape_range",
]

Range = tuple[int, int]  # lower and upper bound; an upper bound below 0: without bound


def _positive(value: object, subject: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"{subject} is {value!r}; sizes are integers above 0")
    return value


def _range(value: object, subject: str) -> Range:
    if not isinstance(value, Sequence) or len(value) != 2:
        raise SpecError(f"{subject} is {value!r}; a range is (lower, upper), upper -1: no bound")
    lower, upper = _positive(value[0], f"the lower bound of {subject}"), value[1]
    if isinstance(upper, bool) or not isinstance(upper, int):
        raise SpecError(f"the upper bound of {subject} is {upper!r}; it is an integer")
    if 0 <= upper < lower:
        raise SpecError(f"{subject} has lowerBound > upperBound: ({lower},{upper})")
    return lower, max(upper, -1)


class NeuralNetworkImageSize:
    """A size of an image, in pixels."""

    def __init__(self, height: int | None = None, width: int | None = None) -> None:
        self.height, self.width = height, width

    def pair(self) -> tuple[int, int]:
        """Height and width.

        Raises:
            SpecError: they are not set, or not positive.
        """
        return _positive(self.height, "the height"), _positive(self.width, "the width")


class NeuralNetworkImageSizeRange:
    """Ranges of the height and width of an image, in pixels."""

    def __init__(self, height_range: Range | None = None, width_range: Range | None = None) -> None:
        self.height_range, self.width_range = height_range, width_range

    def add_height_range(self, height_range: Range) -> None:
        """Set the range of the height: (lower, upper)."""
        self.height_range = height_range

    def add_width_range(self, width_range: Range) -> None:
        """Set the range of the width: (lower, upper)."""
        self.width_range = width_range


class NeuralNetworkMultiArrayShape:
    """A shape [C] or [C, H, W] of the classic mapping."""

    def __init__(
        self, channel: int | None = None, height: int | None = None, width: int | None = None
    ) -> None:
        self.extents = [channel, height, width]

    def set_channel_shape(self, channel_shape: int) -> None:
        """Set the number of channels."""
        self.extents[0] = channel_shape

    def set_height_shape(self, height_shape: int) -> None:
        """Set the height."""
        self.extents[1] = height_shape

    def set_width_shape(self, width_shape: int) -> None:
        """Set the width."""
        self.extents[2] = width_shape

    def shape(self) -> tuple[int, ...]:
        """The extents.

        Raises:
            SpecError: they are neither [C] nor [C, H, W].
        """
        extents = [extent for extent in self.extents if extent is not None]
        if len(extents) not in (1, 3) or self.extents[0] is None:
            raise SpecError(
                "For neural networks, shape must be of length 1 or 3, representing input shape "
                f"[C] or [C,H,W], respectively; it is {self.extents}"
            )
        return tuple(_positive(extent, "an extent") for extent in extents)


class NeuralNetworkMultiArrayShapeRange:
    """Ranges of [C] or [C, H, W] of the classic mapping: ``{"C": (1, 3), "H": ..., "W": ...}``."""

    def __init__(self, input_ranges: Mapping[str, Range] | None = None) -> None:
        self.ranges = dict(input_ranges or {})

    def add_channel_range(self, channel_range: Range) -> None:
        """Set the range of the channels: (lower, upper)."""
        self.ranges["C"] = channel_range

    def add_height_range(self, height_range: Range) -> None:
        """Set the range of the height: (lower, upper)."""
        self.ranges["H"] = height_range

    def add_width_range(self, width_range: Range) -> None:
        """Set the range of the width: (lower, upper)."""
        self.ranges["W"] = width_range

    def list(self) -> list[Range]:
        """The ranges in the order of the axes.

        Raises:
            SpecError: they are neither those of [C] nor of [C, H, W].
        """
        if set(self.ranges) not in ({"C"}, {"C", "H", "W"}):
            raise SpecError(f"ranges are given for {[*self.ranges]}; it is C, or C, H and W")
        return [self.ranges[axis] for axis in "CHW" if axis in self.ranges]


# ---- what is accepted -------------------------------------------------------------------------


def accepted_sizes(model: MLModel | model_pb2.Model, *, most: int = 1024) -> Acceptance:
    """Which sizes of its flexible inputs the layers of a network accept.

    The shape rules try the first `most` sizes of a range and the largest; fewer in networks of
    hundreds of layers. The registered classes of custom layers give their shapes.

    In a pipeline, every network is tried with the sizes that its own inputs may have.

    Raises:
        SpecError: the model is neither a neural network nor a pipeline.
    """
    classes = model._classes.layers if isinstance(model, MLModel) else {}
    spec = model.spec if isinstance(model, MLModel) else model
    custom = shapes_of_classes(classes)
    if networks.pipeline_of(spec) is None:
        return acceptance(spec, custom, most)
    inner = [each for each in networks.models_in(spec) if networks.network_of(each) is not None]
    parts = [acceptance(each, custom, most) for each in inner]
    return Acceptance(
        [axis for each in parts for axis in each.axes],
        [name for each in parts for name in each.opaque],
        [name for each in parts for name in each.varying],
    )


def _change(
    spec: model_pb2.Model,
    name: str,
    kind: str,
    change: Callable[[ft.FeatureType], None],
    *,
    check: bool,
) -> None:
    """Change a feature and raise the version; on an error, change nothing."""
    refuse_programs(
        spec,
        "changing which sizes a model takes",
        "the operations of a program contain its sizes; convert the source again with the new ones",
    )
    described = [*spec.description.input, *spec.description.output]
    feature = next((each for each in described if each.name == name), None)
    if feature is None:
        close = did_you_mean(name, [each.name for each in described])
        raise SpecError(f"the model has no input or output {name!r}.{close}")
    if not feature.type.HasField(kind):
        form = {"imageType": "image", "multiArrayType": "multiArray"}[kind]
        raise SpecError(f"Trying to add sizes of an {form} to a non-{form} feature: {name!r}")
    before = [(each, each.specificationVersion, _copied(each)) for each in networks.models_in(spec)]
    try:
        _apply(spec, name, change, check=check)
    except BaseException:
        for each, version, description in before:
            each.specificationVersion = version
            each.description.CopyFrom(description)
        raise


def _copied(spec: model_pb2.Model) -> model_pb2.ModelDescription:
    copy = model_pb2.ModelDescription()
    copy.CopyFrom(spec.description)
    return copy


def _apply(
    spec: model_pb2.Model, name: str, change: Callable[[ft.FeatureType], None], *, check: bool
) -> None:
    """Change a feature of a model, and in a pipeline, of the models that take it unchanged."""
    described = [*spec.description.input, *spec.description.output]
    feature = next(each for each in described if each.name == name)
    known = flexible_axes(feature.type)
    change(feature.type)
    is_input = any(each.name == name for each in spec.description.input)
    pipeline = networks.pipeline_of(spec)
    if pipeline is not None and is_input:
        _apply_inside(pipeline, name, change, check=check)
    elif pipeline is not None:
        for model in pipeline.models:
            if any(each.name == name for each in model.description.output):
                _apply(model, name, change, check=check)
    elif check and is_input and networks.network_of(spec) is not None:
        new = flexible_axes(feature.type) - known
        _refuse(name, acceptance(spec, shapes_of_classes({}), new={name: new}))
    set_type(spec, name, feature.type)
    spec.specificationVersion = max(spec.specificationVersion, versions.required(spec))


def _apply_inside(
    pipeline: model_pb2.Pipeline,
    name: str,
    change: Callable[[ft.FeatureType], None],
    *,
    check: bool,
) -> None:
    """Change an input of a pipeline in the models that take it."""
    varying: dict[str, str] = {}  # which model makes what varies
    for index, model in enumerate(pipeline.models):
        where = pipeline.names[index] if index < len(pipeline.names) else str(index)
        with context(f"changing model {where!r} of the pipeline"):
            inputs = {each.name: each.type for each in model.description.input}
            for other in (each for each in inputs if each in varying and check):
                if not flexible_axes(inputs[other]):
                    raise SpecError(
                        f"its input {other!r}, {features.show(inputs[other])}, has one shape, and "
                        f"varies with the size of {name!r}: model {varying[other]!r} makes it. "
                        f"Set a range of {other!r} in spec.pipeline.models[{index}] first, or "
                        "write check=False"
                    )
            if name in inputs and name not in varying:
                _apply(model, name, change, check=check)
            if name in inputs or inputs.keys() & varying.keys():
                varying |= dict.fromkeys(_varying_outputs(model), where)


def _varying_outputs(model: model_pb2.Model) -> list[str]:
    """The outputs whose shape follows the inputs'.

    For models other than networks these are all outputs, except where a model scales pictures
    itself.
    """
    described = {each.name: each.type for each in model.description.output}
    if networks.network_of(model) is not None:
        loose = accepted_sizes(model).varying
        return [*loose, *(name for name, kind in described.items() if flexible_axes(kind))]
    takes_pictures = any(each.type.HasField("imageType") for each in model.description.input)
    return [] if takes_pictures else [*described]


def _refuse(name: str, accepted: Acceptance) -> None:
    broken = [str(axis) for axis in accepted.axes if axis.input == name and not axis.is_whole]
    if broken:
        lines = paragraph(f"  - {line}" for line in broken)
        raise SpecError(
            f"the layers do not take all of these sizes:\n{lines}\nAsk for sizes that they accept, "
            "or pass check=False to keep these"
        )


# ---- images -----------------------------------------------------------------------------------


def add_enumerated_image_sizes(
    spec: model_pb2.Model,
    feature_name: str,
    sizes: NeuralNetworkImageSize | Sequence[NeuralNetworkImageSize],
    *,
    check: bool = True,
) -> None:
    """Let an image have one of several sizes, the described one first.

    Raises:
        SpecError: there is no such image, or a layer does not take one of the sizes.
    """
    listed = [sizes] if isinstance(sizes, NeuralNetworkImageSize) else list(sizes)
    pairs = [size.pair() for size in listed]

    def change(feature: ft.FeatureType) -> None:
        image = feature.imageType
        sizes = [(size.height, size.width) for size in image.enumeratedSizes.sizes]
        for height, width in _distinct([*sizes, (image.height, image.width), *pairs], sizes):
            image.enumeratedSizes.sizes.add(height=height, width=width)

    _change(spec, feature_name, "imageType", change, check=check)


def update_image_size_range(
    spec: model_pb2.Model,
    feature_name: str,
    size_range: NeuralNetworkImageSizeRange,
    *,
    check: bool = True,
) -> None:
    """Let the height and width of an image vary in a range.

    Raises:
        SpecError: there is no such image, or a layer does not take all of the sizes; the
            message tells which ones all layers take.
    """
    ranges = [
        _range(size_range.height_range, "the height"),
        _range(size_range.width_range, "the width"),
    ]

    def change(feature: ft.FeatureType) -> None:
        image = feature.imageType
        bounds = image.imageSizeRange
        _fill(bounds.heightRange, ranges[0], image.height)
        _fill(bounds.widthRange, ranges[1], image.width)

    _change(spec, feature_name, "imageType", change, check=check)


# ---- multi-arrays -----------------------------------------------------------------------------


def add_enumerated_multiarray_shapes(
    spec: model_pb2.Model,
    feature_name: str,
    shapes: NeuralNetworkMultiArrayShape | Sequence[NeuralNetworkMultiArrayShape],
    *,
    check: bool = True,
) -> None:
    """Let a multi-array have one of several shapes [C] or [C, H, W], the described one first.

    Raises:
        SpecError: there is no such multi-array, or a layer does not take one of the shapes.
    """
    listed = [shapes] if isinstance(shapes, NeuralNetworkMultiArrayShape) else list(shapes)
    _enumerate(spec, feature_name, [shape.shape() for shape in listed], check=check)


def add_multiarray_ndshape_enumeration(
    spec: model_pb2.Model,
    feature_name: str,
    enumerated_shapes: Sequence[Sequence[int]],
    *,
    check: bool = True,
) -> None:
    """Let a multi-array have one of several shapes of any rank, the described one first.

    Raises:
        SpecError: as for `add_enumerated_multiarray_shapes`.
    """
    shapes = [tuple(_positive(e, "an extent") for e in shape) for shape in enumerated_shapes]
    if not shapes or not all(shapes):
        raise SpecError("enumerated_shapes is empty, or a shape in it is")
    _enumerate(spec, feature_name, shapes, check=check)


def update_multiarray_shape_range(
    spec: model_pb2.Model,
    feature_name: str,
    shape_range: NeuralNetworkMultiArrayShapeRange,
    *,
    check: bool = True,
) -> None:
    """Let the extents of a multi-array [C] or [C, H, W] vary in ranges.

    Raises:
        SpecError: there is no such multi-array, or a layer does not take all of the sizes; the
            message tells which ones all layers take.
    """
    _set_ranges(spec, feature_name, shape_range.list(), check=check)


def set_multiarray_ndshape_range(
    spec: model_pb2.Model,
    feature_name: str,
    lower_bounds: Sequence[int],
    upper_bounds: Sequence[int],
    *,
    check: bool = True,
) -> None:
    """Let the extents of a multi-array of any rank vary; an upper bound of -1: without bound.

    Raises:
        SpecError: as for `update_multiarray_shape_range`.
    """
    if len(lower_bounds) != len(upper_bounds):
        raise SpecError(f"{len(lower_bounds)} lower and {len(upper_bounds)} upper bounds are given")
    bounds = list(zip(lower_bounds, upper_bounds, strict=True))
    _set_ranges(spec, feature_name, bounds, check=check)


def _enumerate(
    spec: model_pb2.Model, name: str, shapes: Sequence[tuple[int, ...]], *, check: bool
) -> None:
    def change(feature: ft.FeatureType) -> None:
        array = feature.multiArrayType
        known = [tuple(item.shape) for item in array.enumeratedShapes.shapes]
        own = tuple(array.shape)
        wrong = [shape for shape in shapes if own and len(shape) != len(own)]
        if wrong:
            raise SpecError(f"{wrong[0]} and the described shape {own} differ in rank")
        for shape in _distinct([*known, *([own] if own else []), *shapes], known):
            array.enumeratedShapes.shapes.add(shape=shape)
        if not own and array.enumeratedShapes.shapes:  # networks need a default
            array.shape[:] = array.enumeratedShapes.shapes[0].shape

    _change(spec, name, "multiArrayType", change, check=check)


def _set_ranges(spec: model_pb2.Model, name: str, bounds: Sequence[Range], *, check: bool) -> None:
    ranges = [_range(pair, f"axis {axis}") for axis, pair in enumerate(bounds)]

    def change(feature: ft.FeatureType) -> None:
        array = feature.multiArrayType
        if array.shape and len(array.shape) != len(ranges):
            raise SpecError(
                f"{len(ranges)} ranges are given for the {len(array.shape)} axes of {name!r}"
            )
        array.ClearField("shapeRange")
        array.shapeRange.SetInParent()
        own = array.shape or [None] * len(ranges)
        for pair, extent in zip(ranges, own, strict=True):
            _fill(array.shapeRange.sizeRanges.add(), pair, extent)
        if not array.shape:  # networks need a default
            array.shape[:] = [lower for lower, _ in ranges]

    _change(spec, name, "multiArrayType", change, check=check)


def _fill(target: ft.SizeRange, pair: Range, default: int | None) -> None:
    lower, upper = pair
    if default and not (lower <= default and (upper < 0 or default <= upper)):
        raise SpecError(f"the described size {default} is outside of the range {pair}")
    target.lowerBound, target.upperBound = lower, upper


def _distinct(
    items: Iterable[tuple[int, ...]], known: Iterable[tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """Each item once, without the known ones."""
    there = set(known)
    return [item for item in dict.fromkeys(items) if item not in there]
