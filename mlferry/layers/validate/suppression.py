"""Rules about models that suppress boxes, as in Apple's checker."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.layers.validate.rules import kind_rule
from mlferry.layers.validate.signatures import described
from mlferry.spec import networks
from mlferry.spec.problems import Problems, listed, warning
from mlferry.spec.proto import features_pb2 as ft, model_pb2, transforms_pb2 as tf

_ARRAY, _NUMBER = ("multiArrayType",), ("doubleType",)
_INPUTS = {
    "confidenceInputFeatureName": _ARRAY,
    "coordinatesInputFeatureName": _ARRAY,
    "iouThresholdInputFeatureName": _NUMBER,
    "confidenceThresholdInputFeatureName": _NUMBER,
}
_OUTPUTS = {"confidenceOutputFeatureName": _ARRAY, "coordinatesOutputFeatureName": _ARRAY}
_FLOAT32_FROM = 5  # the version of iOS 14


@kind_rule("nonMaximumSuppression")
def suppression_features(spec: model_pb2.Model, params: tf.NonMaximumSuppression) -> Problems:
    """Each input and output is named by a parameter, and has its type."""
    for role, features, fields in (
        ("input", spec.description.input, _INPUTS),
        ("output", spec.description.output, _OUTPUTS),
    ):
        names = {getattr(params, field) for field in fields}
        unused = sorted({feature.name for feature in features} - names)
        if unused:
            yield warning(f"{role}s that no parameter names: {', '.join(map(repr, unused))}")
        for field, types in fields.items():
            if getattr(params, field) or types == _ARRAY:
                yield from described(features, getattr(params, field), field, types)


@kind_rule("nonMaximumSuppression")
def suppression_thresholds(spec: model_pb2.Model, params: tf.NonMaximumSuppression) -> Problems:
    """Thresholds are within their bounds."""
    if not 0 <= params.iouThreshold <= 1:
        yield warning(f"iouThreshold is {params.iouThreshold}; it goes from 0 to 1")
    if not params.confidenceThreshold >= 0:
        yield warning(f"confidenceThreshold is {params.confidenceThreshold}; it begins at 0")


@kind_rule("nonMaximumSuppression")
def suppression_arrays(spec: model_pb2.Model, params: tf.NonMaximumSuppression) -> Problems:
    """Boxes and confidences have numbers of one type, and fit each other and the labels."""
    inputs, outputs = spec.description.input, spec.description.output
    arrays = [
        array
        for features, field in (
            (inputs, "confidenceInputFeatureName"),
            (inputs, "coordinatesInputFeatureName"),
            (outputs, "confidenceOutputFeatureName"),
            (outputs, "coordinatesOutputFeatureName"),
        )
        for array in _array(features, getattr(params, field))
    ]
    if len(arrays) < 4:
        return  # the rule about features reports what is missing
    types = {array.dataType for array in arrays}
    allowed = {ft.ArrayFeatureType.DOUBLE}
    if spec.specificationVersion >= _FLOAT32_FROM:
        allowed.add(ft.ArrayFeatureType.FLOAT32)
    if len(types) > 1:
        yield warning("confidences and coordinates have numbers of several types; it must be one")
    elif not types <= allowed:
        from_version = f"float64, or float32 from version {_FLOAT32_FROM} on"
        yield warning(f"the numbers of confidences and coordinates must be {from_version}")
    yield from _outputs(params, *arrays[2:])


def _array(
    features: Sequence[model_pb2.FeatureDescription], name: str
) -> list[ft.ArrayFeatureType]:
    return [item.type.multiArrayType for item in features if item.name == name][:1]


def _outputs(
    params: tf.NonMaximumSuppression, confidence: ft.ArrayFeatureType, boxes: ft.ArrayFeatureType
) -> Problems:
    """Described shapes have two axes; the first is that of the boxes, the second the classes."""
    axes = [_axes(confidence), _axes(boxes)]
    for name, each in zip(("confidences", "coordinates"), axes, strict=True):
        if each and len(each) != 2:
            yield warning(f"the output of the {name} is described with {len(each)} axes, not 2")
    if [] in axes or any(len(each) != 2 for each in axes):
        if (axes[0] and not axes[1]) or (axes[1] and not axes[0]):
            yield warning("one of its outputs is described with a shape, the other without one")
        return
    if axes[0][0] != axes[1][0]:
        counts = " and ".join(_count(*each[0]) for each in axes)
        yield warning(f"its outputs are described with {counts} boxes")
    labels = len(networks.class_labels(params))
    least, most = axes[0][1]
    if labels and not least <= labels <= (most if most >= 0 else labels):
        yield warning(
            f"it has {labels} labels; its confidences are described with {listed([least])}"
        )


def _axes(array: ft.ArrayFeatureType) -> list[tuple[int, int]]:
    """Each axis from its least to its largest extent, -1 without a bound."""
    if array.WhichOneof("ShapeFlexibility") == "shapeRange":
        return [(each.lowerBound, each.upperBound) for each in array.shapeRange.sizeRanges]
    return [(extent, extent) for extent in array.shape]


def _count(least: int, most: int) -> str:
    if most < 0:
        return f"{least} or more"
    return str(least) if least == most else f"{least} to {most}"
