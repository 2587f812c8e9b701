"""Values of features that are not blobs: checked as inputs, shaped as outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.errors import PredictionError
from mlferry.numerics.shapes import show
from mlferry.runtime import images
from mlferry.spec import features
from mlferry.spec.proto import features_pb2 as ft


def to_feature(name: str, value: object, feature: ft.FeatureType) -> Any:
    """A value as its feature's type has it: float, int, str, float64 array, dict or list.

    Raises:
        PredictionError: the value is of another type or shape.
    """
    kind = feature.WhichOneof("Type") or ""
    convert = _KINDS.get(kind)
    if convert is None:
        raise PredictionError(f"{name!r} is a {features.show(feature)}, which cannot be given here")
    return convert(name, value, feature)


def _refuse(name: str, value: object, feature: ft.FeatureType) -> PredictionError:
    return PredictionError(
        f"{name!r} is a {features.show(feature)}, not {type(value).__name__} {value!r:.80}"
    )


def _double(name: str, value: object, feature: ft.FeatureType) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise _refuse(name, value, feature)
    return float(array.reshape(-1)[0])


def _integer(name: str, value: object, feature: ft.FeatureType) -> int:
    number = _double(name, value, feature)
    if number != round(number):
        raise _refuse(name, value, feature)
    return round(number)


def _string(name: str, value: object, feature: ft.FeatureType) -> str:
    if not isinstance(value, str):
        raise _refuse(name, value, feature)
    return value


def _array(name: str, value: object, feature: ft.FeatureType) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise PredictionError(f"{name!r} is not a rectangular array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise _refuse(name, value, feature)
    dtype = features.DTYPES.get(feature.multiArrayType.dataType, "float64")
    values = fitted(name, array, feature)
    if dtype == "int32" and ((values < -(2**31)) | (values >= 2**31)).any():
        raise PredictionError(f"{name!r} has values that int32 cannot hold")
    with np.errstate(over="ignore"):
        return (values.astype(dtype) if dtype in _ROUNDED else values).astype(np.float64)


_ROUNDED = ("float32", "float16")  # a model gets what an array of this type can hold


def numbers(name: str, value: object) -> NDArray[Any]:
    """The value of an input as an array.

    Raises:
        PredictionError: it is none, or not of numbers.
    """
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise PredictionError(f"input {name!r} is not a rectangular array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise PredictionError(f"input {name!r} takes numbers, not {array.dtype}")
    return array


def _dictionary(name: str, value: Mapping[Any, Any], feature: ft.FeatureType) -> dict[Any, float]:
    key_type = str if feature.dictionaryType.WhichOneof("KeyType") == "stringKeyType" else int
    keys_fit = isinstance(value, Mapping) and all(
        isinstance(key, key_type | np.integer) for key in value
    )
    if not keys_fit:
        raise _refuse(name, value, feature)
    return {key_type(key): float(number) for key, number in value.items()}


def _sequence(name: str, value: object, feature: ft.FeatureType) -> list[Any]:
    item = str if feature.sequenceType.WhichOneof("Type") == "stringType" else int
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise _refuse(name, value, feature)
    entries = list(value)
    if not all(isinstance(entry, item | np.integer) for entry in entries):
        raise _refuse(name, value, feature)
    bounds = feature.sequenceType.sizeRange
    if feature.sequenceType.HasField("sizeRange") and not images.in_range(len(entries), bounds):
        raise PredictionError(f"{name!r} has {len(entries)} entries; its size is limited")
    return [item(entry) for entry in entries]


_KINDS: dict[str, Any] = {
    "doubleType": _double,
    "int64Type": _integer,
    "stringType": _string,
    "multiArrayType": _array,
    "dictionaryType": _dictionary,
    "sequenceType": _sequence,
    "imageType": lambda name, value, feature: value,
}


def fitted(name: str, array: NDArray[Any], feature: ft.FeatureType) -> NDArray[Any]:
    """A multi-array in a shape that the feature allows: its own, or with one axis more or less.

    The additional or missing axis is a batch of 1 in front, which apps and scripts write or omit.

    Raises:
        PredictionError: none of these shapes is allowed.
    """
    shape = array.shape
    for allowed in (shape, (1, *shape), shape[1:] if shape[:1] == (1,) else shape):
        if _allows(feature, allowed):
            return array.reshape(allowed)
    default = tuple(feature.multiArrayType.shape)
    hint = ""
    if len(shape) == len(default) and shape[1:] == default[1:] and default[0] == 1:
        hint = ". For several samples, give predict a list of dicts"
    raise PredictionError(
        f"input {name!r} takes a {features.show(feature)}, not shape {show(shape)}{hint}"
    )


def _allows(feature: ft.FeatureType, shape: tuple[int, ...]) -> bool:
    array = feature.multiArrayType
    kind = array.WhichOneof("ShapeFlexibility")
    default = tuple(array.shape)
    if kind == "enumeratedShapes":
        allowed = [tuple(item.shape) for item in array.enumeratedShapes.shapes]
        return shape in (*allowed, default)
    if kind == "shapeRange":
        ranges = array.shapeRange.sizeRanges
        return len(shape) == len(ranges) and all(map(images.in_range, shape, ranges))
    return not default or shape == default


def vector(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers and arrays joined to one vector, in their order."""
    return np.concatenate([np.asarray(value, np.float64).ravel() for value in values])
