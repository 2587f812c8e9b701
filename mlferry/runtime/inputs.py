"""Check the values given for a model's inputs, and make blobs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array
from mlferry.numerics.shapes import show
from mlferry.registry import did_you_mean
from mlferry.runtime import features as values, images
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.text import printable


def check_names(data: object, description: model_pb2.ModelDescription) -> None:
    """Raise a `PredictionError` unless `data` has every required input and no unknown one."""
    if not isinstance(data, Mapping):
        raise PredictionError(
            "predict takes a dict from input names to values, or a list of such dicts, not a "
            f"{type(data).__name__}"
        )
    names = [feature.name for feature in description.input]
    for name in data:
        if name not in names:
            close = did_you_mean(str(name), names)
            raise PredictionError(
                f"the model has no input {name!r}.{close} It takes {_listed(description)}"
            )
    missing = [
        f.name for f in description.input if data.get(f.name) is None and not f.type.isOptional
    ]
    if missing:
        raise PredictionError(
            f"no value for input {', '.join(map(repr, missing))}. The model takes "
            + _listed(description)
        )


def _listed(description: model_pb2.ModelDescription) -> str:
    return "; ".join(f"{printable(f.name)}: {features.show(f.type)}" for f in description.input)


def to_blob(
    name: str, value: Any, feature: ft.FeatureType, network: networks.Network, rank5: bool
) -> Array:
    """The blob that a network reads for one input."""
    kind = feature.WhichOneof("Type")
    if kind == "imageType":
        blob = images.to_blob(name, value, feature.imageType)
        layout = images.color_layout(feature.imageType)
        blob = images.preprocess(name, blob, layout, network.preprocessing)
        classic = network.imageInputShapeMapping == 0
        return blob[None] if classic else blob
    if kind == "multiArrayType":
        array = _numbers(name, value)
        if rank5 or network.arrayInputShapeMapping == 0:
            return _classic(name, array, feature.multiArrayType)
        return values.fitted(name, array, feature)
    if kind in ("doubleType", "int64Type"):
        array = _numbers(name, value)
        if array.size != 1:
            raise PredictionError(f"input {name!r} is one number; its value has {array.shape}")
        return array.reshape((1, 1, 1, 1, 1) if rank5 else (1,))
    raise PredictionError(f"a network cannot take the {features.show(feature)} input {name!r}")


_HELD = frozenset(map(np.dtype, ("f2", "f4", *"?bBhHiIlLqQ")))  # float32 holds their ranges


def fixed_shapes(
    description: model_pb2.ModelDescription, network: networks.Network
) -> dict[str, tuple[int, ...]] | None:
    """The shapes of the inputs where each is an array of one shape that is a blob as it is."""
    shapes = {f.name: tuple(f.type.multiArrayType.shape) for f in description.input}
    flexible = features.has_flexible_input(description)
    if network.arrayInputShapeMapping == 0 or flexible or not all(shapes.values()):
        return None
    return shapes


def fit(data: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether values are arrays of these shapes, of numbers that float32 holds.

    For those that do not, `check_names` and `to_blob` say why.
    """
    return (
        isinstance(data, dict)
        and data.keys() == shapes.keys()
        and all(
            type(value) is np.ndarray and value.shape == shapes[name] and value.dtype in _HELD
            for name, value in data.items()
        )
    )


def default_blob(feature: ft.FeatureType, rank5: bool) -> Array:
    """The blob of an optional input that you leave out: its default value everywhere."""
    shape = tuple(feature.multiArrayType.shape) or (1,)
    if rank5:
        shape = (1, 1, *shape, 1, 1) if len(shape) == 1 else (1, 1, *shape)
    limits.check_blob(shape)
    return np.full(shape, features.default_of(feature), np.float32)


def to_user(name: str, value: Any, feature: ft.FeatureType) -> Any:
    """A result converted to the type of its feature.

    Raises:
        PredictionError: it is of another kind.
    """
    kind = feature.WhichOneof("Type")
    if kind == "imageType":
        return images.from_blob(name, value, feature.imageType)
    if kind == "multiArrayType":
        return np.asarray(value).astype(dtype_of(feature), copy=False)
    if kind == "int64Type" and np.size(value) == 1 and not isinstance(value, str):
        return round(float(np.reshape(value, -1)[0]))
    return values.to_feature(name, value, feature)


def dtype_of(feature: ft.FeatureType) -> np.dtype[Any]:
    """The type of the values that a multi-array comes with."""
    return np.dtype(features.DTYPES.get(feature.multiArrayType.dataType, "float32"))


def _numbers(name: str, value: object) -> Array:
    array = values.numbers(name, value)
    if array.dtype.itemsize <= 4:
        return np.atleast_1d(array.astype(np.float32))
    with np.errstate(over="ignore"):
        floats = np.atleast_1d(array.astype(np.float32))
    if np.isinf(floats).sum() != np.isinf(array).sum():
        raise PredictionError(f"input {name!r} has values that float32 cannot hold")
    return floats


def _classic(name: str, array: Array, feature: ft.ArrayFeatureType) -> Array:
    """The rank-5 mapping: [C] or [C, H, W], with Seq and Batch in front where they are given."""
    default = tuple(feature.shape)
    shape = array.shape
    if len(default) == 1:
        full = {1: (1, 1, *shape, 1, 1), 2: (1, *shape, 1, 1), 3: (*shape, 1, 1), 5: shape}
    elif len(default) == 3:
        full = {3: (1, 1, *shape), 4: (1, *shape), 5: shape}
    else:
        full = {5: shape}
    target = full.get(len(shape))
    inner = (*default, 1, 1) if len(default) == 1 else default
    flexible = feature.WhichOneof("ShapeFlexibility") is not None
    if target is None or (len(inner) == 3 and not flexible and target[2:] != inner):
        raise PredictionError(
            f"input {name!r} takes shape {show(default)}, or with sequence and batch axes in "
            f"front, not {show(shape)}"
        )
    return array.reshape(target)
